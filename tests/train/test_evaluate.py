"""The metrics of a model."""

import numpy as np
import pytest
import torch
from sklearn.metrics import euclidean_distances
from torch import Tensor

from train import evaluate
from train.dataset import Dataset


def test_trustworthiness_samples_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images that are sorted by class, as a folder's are, some of each class are looked at."""
    seen: list[Tensor] = []

    def noted(images: Tensor) -> np.ndarray:
        seen.append(images.unique())
        return np.random.default_rng(0).random((len(images), len(images)))

    monkeypatch.setattr(evaluate, "TRUSTWORTHINESS_SAMPLE", 100)
    monkeypatch.setattr(evaluate, "distances", noted)
    images = torch.arange(10, dtype=torch.uint8).repeat_interleave(100)[:, None, None, None]

    evaluate.neighbourhood_trust(images, np.zeros((1000, 2), np.float32))

    assert seen[0].tolist() == list(range(10))


def test_distances_are_euclids(digits: Dataset) -> None:
    """Added up a few columns at a time, they are those between whole images."""
    images = digits.test_images[:50]

    expected = euclidean_distances(images.flatten(1).double().numpy())

    assert evaluate.distances(images) == pytest.approx(expected, abs=1e-4)
