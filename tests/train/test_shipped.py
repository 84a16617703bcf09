"""The weights in the repository are what their card says."""

from pathlib import Path

import pytest

from train.checkpoint import load_checkpoint
from train.dataset import Dataset
from train.evaluate import embed_and_score

SHIPPED = Path(__file__).parents[2] / "weights" / "mnist"


def test_shipped_weights_reach_their_card(mnist: Dataset) -> None:
    """The test error and the map, computed again from the real MNIST, are the card's."""
    shipped = load_checkpoint(SHIPPED)

    embeddings, errors = embed_and_score(shipped.model, mnist.test_images)

    assert errors.mean() == pytest.approx(shipped.card["metrics"]["mse"], rel=1e-4)
    assert embeddings == pytest.approx(shipped.embeddings, abs=1e-3)
    assert mnist.checksum == shipped.card["dataset"]["sha256"]


def test_shipped_weights_beat_pca_by_far() -> None:
    """The shipped model has at least a quarter less error than PCA with two components."""
    metrics = load_checkpoint(SHIPPED).card["metrics"]

    assert metrics["mse"] < 0.75 * metrics["pca_mse"]


def test_readme_has_the_cards_figures() -> None:
    """The table's numbers are the card's."""
    metrics = load_checkpoint(SHIPPED).card["metrics"]
    readme = (SHIPPED.parents[1] / "README.md").read_text()

    assert f"| PCA, 2 components | {metrics['pca_mse']:.4f} | |" in readme
    weights = f"| these weights | {metrics['mse']:.4f} | {metrics['knn5_accuracy']:.2f} |"
    assert weights in readme


def test_shipped_folder_is_small() -> None:
    """A clone stays light: 2 MB in all."""
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 2_000_000
