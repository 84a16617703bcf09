"""The user's own images: a folder of files of any size and colours, as one dataset.

Where the folder has subfolders, the first level of them gives the labels. Files are read by the
function that serving reads them with, so the model meets in production what it met in training.
"""

import os
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from serve.bundle.errors import RequestError
from serve.bundle.images import PixelBudget, read_image
from serve.bundle.manifest import ImageSpec
from serve.bundle.pictures.kinds import SUFFIXES
from train.dataset import Dataset
from train.errors import DatasetError

# Fewest images that make a dataset, and of them for the test: the metric trustworthiness is not
# defined for fewer than 3.
FEWEST, FEWEST_TESTED = 15, 3
SPLITS = ("image", "folder", "prefix")  # what isn't torn apart into training and test images
FEWEST_GROUPS = 5  # 1 of 5 is for the test, 1 of the other 4 for validation


def load_folder(
    folder: Path,
    channels: int | None,
    size: int,
    framing: str,
    skip_unreadable: bool,
    split_by: str,
) -> Dataset:
    """Read every image file below ``folder``; every fifth, by name, is a test image.

    Args:
        folder: searched at any depth.
        channels: 1 or 3; None takes 3 if any image is coloured, else 1.
        size: height and width to bring the images to.
        framing: how files are cut to a square; of serve.bundle.manifest.FRAMINGS.
        skip_unreadable: leave out broken files, naming them, instead of refusing the folder.
        split_by: ``folder`` keeps the images of each folder on one side, ``prefix`` those of a
            folder whose names differ in their last number only, as in a burst. Then every fifth
            group is for the test.

    Raises:
        DatasetError: no folder, too few images or groups of images, or broken ones.
    """
    if channels not in (None, 1, 3):
        raise DatasetError(f"images have 1 or 3 channels; input_dim is {channels}")
    paths = find_images(folder)
    # A picture that isn't coloured has the same pixels read as grey as in each of its colours.
    spec = ImageSpec(channels or 3, size, size, "keep", framing)
    readable, images, broken = read_all(paths, spec)
    if broken and not skip_unreadable:
        raise DatasetError(
            f"{len(broken)} of {len(paths)} images can't be read (--skip-unreadable leaves them "
            f"out); the first is {broken[0]}"
        )
    for line in broken:
        print(f"left out: {line}", file=sys.stderr)
    if len(images) < FEWEST:
        raise DatasetError(f"{folder} holds {len(images)} images; at least {FEWEST} are needed")
    classes, labels = label_by_subfolder(folder, readable)
    groups = group(readable, split_by)
    if channels is None and all((image == image[0]).all() for image in images):
        images = images[:, :1]
    pixels = torch.from_numpy(images)
    test = groups % 5 == 4
    learned, tested = int((~test).sum()), int(test.sum())
    if learned < FEWEST - FEWEST_TESTED or tested < FEWEST_TESTED:
        raise DatasetError(
            f"split by {split_by}, {learned} images are for training and {tested} for the test; at "
            f"least {FEWEST - FEWEST_TESTED} and {FEWEST_TESTED} are needed"
        )
    parts = pixels[~test], labels[~test], pixels[test], labels[test]
    return Dataset(
        "folder",
        *parts,
        polarity="keep",
        framing=framing,
        classes=classes,
        split_by=split_by,
        train_groups=None if split_by == "image" else groups[~test],
        left_out=len(broken),
    )


def find_images(folder: Path) -> list[Path]:
    """Every image file below ``folder``, by suffix, sorted; says what else is there.

    Hidden files and folders are passed over, and linked folders aren't entered.

    Raises:
        DatasetError: the folder, or one below it, can't be listed.
    """

    def refuse(error: OSError) -> None:
        raise DatasetError(f"{error.filename} can't be listed: {error.strerror}") from error

    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    found, others, linked = list[Path](), Counter[str](), 0
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked += sum((Path(place) / name).is_symlink() for name in folders)
        for path in (Path(place) / name for name in files if not name.startswith(".")):
            if path.suffix.lower() in SUFFIXES:
                found.append(path)
            else:
                others[path.suffix or path.name] += 1
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))
        print(f"not read, by suffix: {kinds}", file=sys.stderr)
    if linked:
        print(f"linked folders, not entered: {linked}", file=sys.stderr)
    return sorted(found)


def read_all(paths: list[Path], spec: ImageSpec) -> tuple[list[Path], NDArray[np.uint8], list[str]]:
    """Read files under a progress bar.

    Returns:
        The readable files, in order; their images, uint8[N, C, H, W]; and a line for each broken
        file.
    """
    readable, broken = list[Path](), list[str]()
    images = np.empty((len(paths), *spec.shape), np.uint8)
    for path in track(paths, "reading", console=Console(stderr=True)):
        try:
            if not path.is_file():  # a pipe would be waited for
                raise OSError("not a file")
            images[len(readable)] = read_image(path.read_bytes(), spec, PixelBudget())
            readable.append(path)
        except (OSError, RequestError) as error:
            broken.append(f"{path}: {error}")
    return readable, images[: len(readable)], broken


def label_by_subfolder(folder: Path, paths: list[Path]) -> tuple[tuple[str, ...], Tensor]:
    """The first subfolders' names, sorted, and for each path the place of its own: int64[N].

    There are no names if there is only one class.
    """
    names = [path.relative_to(folder).parts[0] if path.parent != folder else "" for path in paths]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    # A name that isn't UTF-8 would make the metadata no JSON.
    told = (os.fsencode(name).decode(errors="backslashreplace") for name in numbers)
    classes = tuple(name or "(no folder)" for name in told) if len(numbers) > 1 else ()
    return classes, torch.tensor([numbers[name] for name in names])


def group(paths: list[Path], split_by: str) -> Tensor:
    """A number for each path, int64[N]: equal where ``split_by`` keeps the images on one side.

    Raises:
        DatasetError: there are fewer than FEWEST_GROUPS groups.
    """
    if split_by == "image":
        return torch.arange(len(paths))
    if split_by == "folder":
        names = [str(path.parent) for path in paths]
    else:
        names = [str(path.parent / re.sub(r"[\W_]*\d+(?=\D*$)", "", path.stem)) for path in paths]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    if len(numbers) < FEWEST_GROUPS:
        raise DatasetError(
            f"split by {split_by}, the images make {len(numbers)} groups; at least "
            f"{FEWEST_GROUPS} are needed"
        )
    return torch.tensor([numbers[name] for name in names])
