"""Samples of any depth → 8 bits, and transparency → the ground that shows the ink."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.bundle.errors import InvalidImage

Spend = Callable[[int, int], None]  # takes a width and a height; PixelBudget.spend
BAND = 1 << 20  # samples that are worked on at once, so that a wide copy stays small


def declare(kind: str, width: int, height: int, spend: Spend) -> None:
    """Have a declared size allowed.

    Raises:
        InvalidImage: a side is 0, or ``spend`` refuses the size.
    """
    if width == 0 or height == 0:
        raise InvalidImage(f"the {kind} has no pixels: it declares {width} x {height}")
    spend(width, height)


def deep_samples(bits: int) -> InvalidImage:
    """The error of samples without an agreed white."""
    return InvalidImage(f"greys of {bits} bits are not read; send 8 or 16 bits a channel")


def to_bytes(samples: NDArray[np.generic], white: int) -> NDArray[np.uint8]:
    """[H, W, …] samples from 0 to ``white`` (65535 at most) → uint8, rounded; larger is white."""
    if white == 255 and samples.dtype == np.uint8:
        return samples.astype(np.uint8, copy=False)
    pixels = np.empty(samples.shape, np.uint8)
    for rows in bands(samples):
        wide = np.minimum(samples[rows], white).astype(np.uint32)
        pixels[rows] = (wide * 255 + white // 2) // white
    return pixels


def bands(samples: NDArray[np.generic]) -> list[slice]:
    """Slices of rows, each of about BAND samples."""
    rows = max(1, BAND * len(samples) // max(1, samples.size))
    return [slice(at, at + rows) for at in range(0, len(samples), rows)]


def over_ground(colours: Image.Image, alpha: Image.Image) -> Image.Image:
    """Lay transparency over the ground that shows the ink, so that no drawing vanishes.

    Light ink is laid over black, dark ink over white. The ink is light if the mean luminance of
    what is opaque, weighted by its opacity, is over 127.

    Args:
        colours: mode "L", "LA", "RGB" or "RGBA"; a fourth band is ignored.
        alpha: mode "L"; 255 is opaque.
    """
    mode = "L" if colours.mode in ("L", "LA") else "RGB"
    if alpha.getextrema() == (255, 255):
        return colours.convert(mode)
    opacity = np.asarray(alpha)
    total = int(opacity.sum(dtype=np.int64))
    luminance = np.asarray(colours.convert("L"))
    light = np.einsum("hw,hw->", luminance, opacity, dtype=np.int64) > 127 * total
    del luminance
    ground = Image.new(mode, colours.size, "black" if light else "white")
    # A picture with alpha bands can be pasted without first making a copy in the ground's mode.
    ground.paste(colours if mode == "RGB" else colours.convert(mode), mask=alpha)
    return ground


def flat(picture: Image.Image) -> Image.Image:
    """A picture of any of Pillow's modes → "L" or "RGB", without transparency."""
    if picture.mode in ("I", "F"):
        raise deep_samples(32)
    if picture.mode == "LAB":
        raise InvalidImage("Lab colours are not read; save the picture in RGB")
    if picture.mode.startswith("I;16"):
        return Image.fromarray(to_bytes(np.asarray(picture), 65535))
    if picture.mode in ("LA", "La"):
        layer = picture.convert("LA")
        return over_ground(layer, layer.getchannel("A"))
    if picture.has_transparency_data:
        layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        return over_ground(layer, layer.getchannel("A"))
    if picture.mode in ("L", "RGB"):
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


def keyed(picture: Image.Image, key: tuple[int, ...], white: int) -> Image.Image:
    """A picture with one transparent colour → "L" or "RGB".

    Args:
        picture: as Pillow reads it: mode "1", "L", "I;16" or "RGB".
        key: the transparent grey or colour, as the file has it.
        white: the file's value of white. Pillow has reduced colours of 16 bits to the high byte,
            so all colours of that high byte become transparent.
    """
    if picture.mode.startswith("I;16"):
        samples = np.asarray(picture)
        wanted = key
    elif white == 65535:
        samples = np.asarray(picture)
        wanted = tuple(value >> 8 for value in key)
    else:
        samples = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
        wanted = tuple(value * 255 // white for value in key)
    same = samples == np.array(wanted if samples.ndim == 3 else wanted[0])
    opaque = ~(same.all(axis=2) if samples.ndim == 3 else same)
    return over_ground(flat(picture), Image.fromarray(opaque.astype(np.uint8) * 255))
