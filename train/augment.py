"""Augmentation on the training device: small affine and elastic warps of uint8 batches.

A batch is warped by a single call of grid_sample, so a CPU and CUDA run the same code, and nothing
has to be loaded or queued. The strengths are those of a human hand: a warped digit still looks
like another sample by the same writer.
"""

import torch
from torch import Tensor
from torch.nn import functional

# The standard deviations of the random warps.
ROTATION = 0.06  # radians
SHEAR = 0.06  # shift of x per unit of y
SCALE = 0.04  # share of the size, drawn for each axis
SHIFT = 0.02  # share of the width, drawn for each axis
ELASTIC = 0.025  # share of the width, drawn for each point of the elastic grid
ELASTIC_GRID = 5  # points along each side of the elastic grid


def augment(
    images: Tensor, strength: float, share: float | Tensor, generator: torch.Generator
) -> Tensor:
    """Warp a share of a batch, each image in its own way.

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
    warped = functional.grid_sample(images.float(), grid, mode="bilinear", align_corners=False)
    return warped.round().to(torch.uint8)


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
    field = functional.interpolate(points, shape[2:], mode="bicubic", align_corners=True)
    return affine + field.permute(0, 2, 3, 1)
