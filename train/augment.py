"""Augmentation on the training device: small random changes of uint8 batches.

Handwriting gets affine and elastic warps, by a single call of grid_sample. The strengths are those
of a human hand: a warped digit still looks like another sample by the same writer. Its strokes stay
nearly as sharp as they were: the cubic interpolation takes 3 % of the variance of MNIST's pixels,
where a linear one would take 13 %. A photograph is moved, mirrored and lit in another way; it is
neither slanted nor resampled. A CPU and CUDA run the same code, and nothing has to be loaded or
queued.
"""

import torch
from torch import Tensor
from torch.nn import functional

# The standard deviations of the random warps of handwriting.
ROTATION = 0.06  # radians
SHEAR = 0.06  # shift of x per unit of y
SCALE = 0.04  # share of the size, drawn for each axis
SHIFT = 0.02  # share of the width, drawn for each axis
ELASTIC = 0.025  # share of the width, drawn for each point of the elastic grid
ELASTIC_GRID = 5  # points along each side of the elastic grid
# Those of the random changes of photographs.
MOVE = 0.1  # share of the width, drawn for each axis, in whole pixels
CONTRAST = 0.1  # share of the distance from middle grey
BRIGHTNESS = 0.1  # share of the range from black to white


def augment(
    images: Tensor, strength: float, share: float | Tensor, generator: torch.Generator
) -> Tensor:
    """Warp a share of a batch as handwriting, each image in its own way.

    Args:
        images: uint8[N, C, H, W] on any device.
        strength: multiplies every standard deviation above; 0 warps nothing.
        share: share of the images to warp, 0 to 1.
        generator: source of the random numbers, on the images' device.

    Returns:
        uint8[N, C, H, W] on the same device.
    """
    if strength == 0:
        return images
    grid = warp_grid(images.shape, strength, share, generator)
    warped = functional.grid_sample(images.float(), grid, mode="bicubic", align_corners=False)
    return warped.round().clamp(0, 255).to(torch.uint8)


def warp_grid(
    shape: torch.Size, strength: float, share: float | Tensor, generator: torch.Generator
) -> Tensor:
    """Where each pixel is taken from: float32[N, H, W, 2] in grid_sample's coordinates (±1)."""
    count, device = shape[0], generator.device
    warped = torch.rand(count, generator=generator, device=device) < share
    noise = torch.randn(6, count, generator=generator, device=device) * strength * warped
    angle, shear = noise[0] * ROTATION, noise[1] * SHEAR
    scale_x, scale_y = 1 + noise[2] * SCALE, 1 + noise[3] * SCALE
    shift_x, shift_y = 2 * SHIFT * noise[4], 2 * SHIFT * noise[5]  # the width is 2 units
    cos, sin = angle.cos(), angle.sin()
    rows = [
        torch.stack([scale_x * cos, scale_x * (shear * cos - sin), shift_x], 1),
        torch.stack([scale_y * sin, scale_y * (shear * sin + cos), shift_y], 1),
    ]
    affine = functional.affine_grid(torch.stack(rows, 1), list(shape), align_corners=False)
    bends = (count, 2, ELASTIC_GRID, ELASTIC_GRID)
    points = torch.randn(bends, generator=generator, device=device)
    points *= 2 * ELASTIC * strength * warped[:, None, None, None]
    vertical, horizontal = (interpolation(ELASTIC_GRID, side, device) for side in shape[2:])
    field = vertical @ points @ horizontal.T
    return affine + field.permute(0, 2, 3, 1)


def interpolation(points: int, side: int, device: torch.device) -> Tensor:
    """float32[side, points]: what each of a grid's points adds to each pixel of ``side``, cubic.

    Two products with such matrices interpolate a batch several times faster than
    functional.interpolate, which works through a batch image by image, on a GPU too.
    """
    unit = torch.eye(points, device=device)[None, None]
    weights = functional.interpolate(unit, (side, points), mode="bicubic", align_corners=True)
    return weights[0, 0]


def relight(
    images: Tensor, strength: float, share: float | Tensor, generator: torch.Generator
) -> Tensor:
    """Change a share of a batch as photographs: move, mirror, relight. Arguments as in augment."""
    if strength == 0:
        return images
    count, (height, width), device = len(images), images.shape[2:], generator.device
    changed = torch.rand(count, generator=generator, device=device) < share
    mirrored = changed & (torch.rand(count, generator=generator, device=device) < 0.5)
    noise = torch.randn(4, count, generator=generator, device=device) * strength * changed
    rows = reflected((noise[0] * MOVE * height).round().long(), height)
    columns = reflected((noise[1] * MOVE * width).round().long(), width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    each = torch.arange(count, device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    gain, shift = (1 + noise[2] * CONTRAST), 127.5 + noise[3] * BRIGHTNESS * 255
    lit = (moved.float() - 127.5) * gain[:, None, None, None] + shift[:, None, None, None]
    return lit.round().clamp(0, 255).to(torch.uint8).permute(0, 3, 1, 2)


def reflected(shifts: Tensor, side: int) -> Tensor:
    """For each shift, int64[N], the pixel that each of ``side`` pixels comes from: int64[N, side].

    What lies beyond an edge is its mirror image.
    """
    places = torch.arange(side, device=shifts.device) + shifts[:, None]
    last = side - 1
    return (last - (last - places.abs()).abs()).clamp(0, last)
