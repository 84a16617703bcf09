"""The user's own images: a folder of files of any size and colours, as one dataset.

Where the folder has subfolders, the first level of them gives the labels. Files are read the way
serving reads them (turned upright, laid over white, resized with antialiasing), so that the model
meets in production what it met in training. tests/test_own_model.py compares this module's pixels
with those that serving reads.
"""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from train.dataset import Dataset
from train.errors import DatasetError

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
# What Pillow's readers are known to raise on damaged files. SyntaxError is Pillow's error for a
# malformed PNG.
UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Fewest images that make a dataset: 3 of 15 are test images, and the metric trustworthiness is not
# defined for fewer.
FEWEST = 15


def load_folder(folder: Path, channels: int | None, size: int, skip_unreadable: bool) -> Dataset:
    """Read every image file below ``folder``; every fifth, by name, is a test image.

    Args:
        folder: searched at any depth.
        channels: 1 or 3; None takes 3 if any image is coloured, else 1.
        size: height and width to bring the images to.
        skip_unreadable: leave out broken files, naming them, instead of refusing the folder.

    Raises:
        DatasetError: no folder, too few images, or broken ones.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    paths = find_images(folder)
    images, broken = read_all(paths, size)
    if broken and not skip_unreadable:
        raise DatasetError(
            f"{len(broken)} of {len(paths)} images can't be read (--skip-unreadable leaves them "
            f"out); the first is {broken[0]}"
        )
    for line in broken:
        print(f"left out: {line}", file=sys.stderr)
    if len(images) < FEWEST:
        raise DatasetError(f"{folder} holds {len(images)} images; at least {FEWEST} are needed")
    numbers = label_by_subfolder(folder, paths)
    labels = torch.tensor([numbers[path] for path in images])
    pixels = torch.from_numpy(with_channels(np.stack(list(images.values())), channels))
    test = torch.arange(len(pixels)) % 5 == 4
    return Dataset("folder", pixels[~test], labels[~test], pixels[test], labels[test])


def find_images(folder: Path) -> list[Path]:
    """Every image file below ``folder``, sorted; hidden files and folders are passed over."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_all(paths: list[Path], size: int) -> tuple[dict[Path, NDArray[np.uint8]], list[str]]:
    """Read files under a progress bar.

    Returns:
        uint8[size, size, 3] for each readable file, in order; and a line for each broken file.
    """
    images, broken = {}, []
    for path in track(paths, "reading", console=Console(stderr=True)):
        try:
            images[path] = read_rgb(path, size)
        except UNREADABLE as error:
            broken.append(f"{path}: {error}")
    return images, broken


def label_by_subfolder(folder: Path, paths: list[Path]) -> dict[Path, int]:
    """A number for each path: the place of its first subfolder among all of them, by name."""
    names = [path.relative_to(folder).parts[0] if path.parent != folder else "" for path in paths]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return {path: numbers[name] for path, name in zip(paths, names, strict=True)}


def read_rgb(path: Path, size: int) -> NDArray[np.uint8]:
    """One file → uint8[size, size, 3]."""
    with Image.open(path) as file:
        if file.mode in ("I", "F"):
            raise ValueError("greys of 32 bits are not read")
        picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith("I;16"):
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if picture.has_transparency_data:
            ground = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(ground, picture.convert("RGBA"))
        picture = picture.convert("RGB")
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(picture)


def with_channels(images: NDArray[np.uint8], channels: int | None) -> NDArray[np.uint8]:
    """uint8[N, H, W, 3] → uint8[N, C, H, W]; without a wish, C is 3 if any image is coloured."""
    if channels is None:
        channels = 3 if (images.min(axis=3) != images.max(axis=3)).any() else 1
    if channels == 3:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if channels != 1:
        raise DatasetError(f"images have 1 or 3 channels; input_dim is {channels}")
    return np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])[:, None]
