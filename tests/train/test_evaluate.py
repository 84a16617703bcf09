"""The metrics of a model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import euclidean_distances
from torch import Tensor

from train import evaluate
from train.checkpoint import load_checkpoint
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


def test_card_tells_the_truth(trained: Path, digits: Dataset) -> None:
    """Evaluating the weights again gives the card's metrics and map."""
    checkpoint = load_checkpoint(trained)

    again = evaluate.evaluate(checkpoint.model, digits)

    assert again.metrics == pytest.approx(checkpoint.card["metrics"], rel=1e-4)
    assert again.embeddings == pytest.approx(checkpoint.embeddings, abs=1e-4)
    assert checkpoint.card["dataset"]["sha256"] == digits.checksum
    assert len(checkpoint.card["calibration"]["mse_quantiles"]) == 101
    assert again.metrics["mean_image_mse"] > again.metrics["pca_mse"]


def test_classes_that_nobody_learned_have_no_neighbours(trained: Path, digits: Dataset) -> None:
    """Accuracy counts the images of learned classes; without two of them there is none."""
    model = load_checkpoint(trained).model
    few = replace(digits, train_images=digits.train_images[:50], test_images=digits.test_images[:9])
    few = replace(few, train_labels=torch.arange(50) % 2, test_labels=torch.arange(9) % 3)
    known = torch.arange(9) % 3 < 2
    alone = replace(few, test_images=few.test_images[known], test_labels=few.test_labels[known])

    accuracy = evaluate.evaluate(model, few).metrics["knn1_accuracy"]

    assert accuracy == evaluate.evaluate(model, alone).metrics["knn1_accuracy"]
    strange = replace(few, test_labels=few.test_labels + 2)
    assert "knn1_accuracy" not in evaluate.evaluate(model, strange).metrics


def test_evaluate_command_compares_with_the_card(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 0 for a true card; for a forged card it is 1, and the metric is named."""
    assert evaluate.main([str(trained)]) == 0

    shutil.copytree(trained, tmp_path / "forged")
    card_file = tmp_path / "forged" / "card.json"
    card = json.loads(card_file.read_text())
    card["metrics"]["mse"] *= 0.9
    card_file.write_text(json.dumps(card))

    assert evaluate.main([str(tmp_path / "forged")]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "differs" in line)
    assert line.startswith("mse ")

    assert evaluate.main([str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("evaluate: ")
