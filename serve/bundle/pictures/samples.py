"""Samples of any depth → 8 bits, and transparency → the ground that shows the ink."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BAND = 1 << 20  # samples that are worked on at once, so that a wide copy stays small


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


def flat(picture: Image.Image) -> Image.Image:
    """A picture of any of Pillow's modes → "L" or "RGB", without transparency."""
    if picture.mode.startswith("I;16"):
        samples, key = np.asarray(picture), picture.info.get("transparency")
        grey = Image.fromarray(to_bytes(samples, 65535))
        if key is None:
            return grey
        return over_ground(grey, Image.fromarray(255 * (samples != key).astype(np.uint8)))
    if picture.has_transparency_data or picture.mode == "La":
        mode = "LA" if picture.mode in ("LA", "La", "L", "1") else "RGBA"
        layer = picture if picture.mode == mode else picture.convert(mode)
        return over_ground(layer, layer.getchannel("A"))
    if picture.mode in ("L", "RGB"):
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


def over_ground(colours: Image.Image, alpha: Image.Image) -> Image.Image:
    """Lay transparency over the ground that shows the ink, so that no drawing vanishes.

    Light ink is laid over black, dark ink over white. The ink is light if the mean luminance of
    what is opaque, weighted by its opacity, is over 127.

    Args:
        colours: mode "L", "LA" or "RGBA"; its own alpha is ignored.
        alpha: mode "L"; 255 is opaque.
    """
    mode = "RGB" if colours.mode == "RGBA" else "L"
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
