"""Datasets and their split."""

from pathlib import Path

import pytest
import torch

from train.data import load_dataset
from train.dataset import Dataset, split, split_groups
from train.errors import DatasetError


def test_split_is_80_20_and_complete() -> None:
    """Every index is in one of the parts, four fifths train, and the seed decides the split."""
    learn, watch = split(1_000, seed=3)

    assert (len(learn), len(watch)) == (800, 200)
    assert sorted(torch.cat([learn, watch]).tolist()) == list(range(1_000))
    assert torch.equal(learn, split(1_000, seed=3)[0])
    assert not torch.equal(learn, split(1_000, seed=4)[0])


def test_groups_are_not_torn_apart() -> None:
    """A fifth of the groups validate, whole; every image is on one of the sides."""
    groups = torch.arange(10).repeat_interleave(7)

    learn, watch = split_groups(groups, seed=3)

    assert len(groups[learn].unique()) == 8
    assert len(groups[watch].unique()) == 2
    assert sorted(torch.cat([learn, watch]).tolist()) == list(range(70))


def test_digits_look_like_mnist(digits: Dataset) -> None:
    """28×28, ink on black with MNIST's margin, all ten digits in both halves."""
    assert digits.train_images.shape == (1_438, 1, 28, 28)
    assert digits.test_images.shape == (359, 1, 28, 28)
    assert digits.train_images.dtype == torch.uint8
    assert digits.train_images[:, :, :4].max() == 0
    assert digits.train_images.max() > 240
    assert set(digits.train_labels.tolist()) == set(digits.test_labels.tolist()) == set(range(10))


def test_mnist_is_the_real_one(mnist: Dataset) -> None:
    """MNIST has 60,000 + 10,000 images with the published pixels."""
    assert mnist.train_images.shape == (60_000, 1, 28, 28)
    assert mnist.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist.checksum == "1e35582d42a90940c55b956deb61875c020b567ed20e3c5b174f52bf7809ed9b"


def test_damaged_mnist_is_named(tmp_path: Path) -> None:
    """A truncated file is an error that names the folder, not a traceback."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\0\0\x08\x03cut short")

    with pytest.raises(DatasetError, match=str(tmp_path)):
        load_dataset("mnist", tmp_path)
