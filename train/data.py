"""Datasets by name."""

import argparse
import os
from pathlib import Path

from train.config import DATASETS
from train.dataset import Dataset
from train.digits import load_digits
from train.errors import DatasetError
from train.folder import load_folder
from train.mnist import TORCHVISION, load_torchvision


def data_folder() -> Path:
    """The folder of datasets where none is named: $PINHOLE_DATA or data."""
    return Path(os.environ.get("PINHOLE_DATA", "data"))


def add_data_dir(parser: argparse.ArgumentParser, help: str) -> None:
    """Give ``parser`` the option that names the folder of datasets."""
    help += " (default: $PINHOLE_DATA or data)"
    parser.add_argument("--data-dir", type=Path, default=data_folder(), help=help)


def load_dataset(
    name: str,
    data_dir: Path,
    channels: int | None = None,
    size: int = 28,
    framing: str = Dataset.framing,
    skip_unreadable: bool = False,
    split_by: str = Dataset.split_by,
) -> Dataset:
    """Read a dataset, downloading it into ``data_dir`` if it isn't there.

    Args:
        name: one of train.config.DATASETS.
        data_dir: where torchvision keeps its datasets; for ``folder``, the images themselves.
        channels: for ``folder`` only, 1 or 3; None takes 3 if any image is coloured, else 1.
        size: for ``folder`` only, the height and width that images are brought to.
        framing: for ``folder`` only, how files are cut to a square.
        skip_unreadable: leave out a folder's broken files instead of refusing the folder.
        split_by: for ``folder`` only, what stays on one side; of train.folder.SPLITS.

    Raises:
        DatasetError: unknown name, or files are missing, damaged or can't be downloaded.
    """
    if name == "digits":
        return load_digits()
    if name == "folder":
        return load_folder(data_dir, channels, size, framing, skip_unreadable, split_by)
    if name in TORCHVISION:
        return load_torchvision(name, data_dir)
    raise DatasetError(f"no dataset is called {name!r}; there are {', '.join(DATASETS)}")
