"""How images are changed in training."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from train import augment
from train.augment import interpolation, reflected, relight
from train.config import TrainConfig
from train.dataset import Dataset
from train.schedule import warped_share


def test_what_lies_beyond_an_edge_is_mirrored() -> None:
    """Pixels moved in from outside are those inside the edge, in reverse; far moves stay inside."""
    assert reflected(torch.tensor([0, 2, -2]), 5).tolist() == [
        [0, 1, 2, 3, 4],
        [2, 3, 4, 3, 2],
        [2, 1, 0, 1, 2],
    ]
    assert set(reflected(torch.tensor([99, -99]), 5).flatten().tolist()) <= set(range(5))


def test_moved_photographs_stay_sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another light, every pixel is one of the photograph's own: nothing is resampled."""
    monkeypatch.setattr(augment, "CONTRAST", 0.0)
    monkeypatch.setattr(augment, "BRIGHTNESS", 0.0)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 128, (20, 3, 9, 8), generator=random, dtype=torch.uint8) * 2

    moved = relight(images, 1.0, 1.0, random)

    assert moved.shape == images.shape
    assert (moved % 2 == 0).all()
    assert (moved != images).flatten(1).any(1).sum() > 15


def test_interpolation_is_torchs_own_as_a_matrix() -> None:
    """A product with the matrix along each axis is torch's cubic interpolation, corners aligned."""
    points = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(points, (28, 9), mode="bicubic", align_corners=True)

    rows, columns = (interpolation(5, side, points.device) for side in (28, 9))

    assert torch.allclose(rows @ points @ columns.T, expected, atol=1e-5)


def test_share_and_strength_decide_how_many_change() -> None:
    """A share of a quarter changes about a quarter; strength 0 changes none."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (400, 1, 8, 8), generator=random, dtype=torch.uint8)

    changed = (relight(images, 1.0, 0.25, random) != images).flatten(1).any(1).float().mean()

    assert changed.item() == pytest.approx(0.25, abs=0.08)
    assert torch.equal(relight(images, 0.0, 1.0, random), images)


def test_warps_get_rarer_towards_the_end(digits: Dataset) -> None:
    """The share of warped images falls over the last part of the run, and augment keeps to it."""
    config = TrainConfig(augment=1.0, augment_fade=0.5)
    assert [round(warped_share(config, step, 100), 3) for step in (0, 50, 75, 99)] == [
        0.8,
        0.8,
        0.4,
        0.016,
    ]
    assert warped_share(replace(config, augment_fade=0.0), 99, 100) == 0.8

    images = digits.train_images[:400]
    for share in (0.0, 0.25, 1.0):
        made = augment.augment(images, 1.0, share, torch.Generator().manual_seed(0))
        changed = (made != images).flatten(1).any(1).float().mean().item()
        assert changed == pytest.approx(share, abs=0.08)  # 0.02 is its deviation
