"""How good a model is on images it never saw, and what serving needs to know about that.

``python -m train.evaluate CHECKPOINT`` computes a checkpoint's metrics again, from the weights and
the data, and fails if they are not what its card says.

Metrics, all on the test images: the reconstruction error beside that of PCA with as many
components; nearest-neighbour accuracy in the embedding space (fit on the training images, where
there are labels); and trustworthiness, the share of each embedding's neighbours that were
neighbours as images (Venna & Kaski 2001).
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.checkpoint import load_checkpoint
from train.data import Dataset, load_dataset
from train.errors import DatasetError, TrainError
from train.loop import EVALUATION_BATCH
from train.model import Autoencoder, to_unit_range

SAME = 1e-3  # relative: kernels of another processor add in another order
TRUSTWORTHINESS_SAMPLE = 2_000  # images; its distance matrix grows with the square


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` found.

    Attributes:
        metrics: name → value; every ``mse`` is per pixel, pixels in [0, 1].
        mse_quantiles: float[101], the 0th to 100th percentile of the test images' own mse.
        embeddings: float32[N, D] of the test images.
        labels: int64[N] of the test images.
    """

    metrics: dict[str, float]
    mse_quantiles: NDArray[np.float64]
    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]


def evaluate(model: Autoencoder, dataset: Dataset) -> Evaluation:
    """Measure ``model`` on the test half of ``dataset``."""
    train_embeddings, _ = embed_and_score(model, dataset.train_images)
    embeddings, errors = embed_and_score(model, dataset.test_images)
    train_labels, labels = dataset.train_labels.numpy(), dataset.test_labels.numpy()
    metrics = {
        "mse": float(errors.mean()),
        "pca_mse": pca_mse(dataset, components=embeddings.shape[1]),
        "trustworthiness": neighbourhood_trust(dataset.test_images, embeddings),
    }
    if len(np.unique(labels)) > 1:
        for k in (1, 5):
            metrics[f"knn{k}_accuracy"] = knn_accuracy(
                k, train_embeddings, train_labels, embeddings, labels
            )
    quantiles = np.quantile(errors, np.linspace(0, 1, 101))
    return Evaluation(metrics, quantiles, embeddings, labels)


@torch.inference_mode()
def embed_and_score(
    model: Autoencoder, images: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """uint8[N, C, H, W] → embeddings float32[N, D] and each image's mse float64[N]."""
    device = next(model.parameters()).device
    embeddings, errors = [], []
    for batch in images.split(EVALUATION_BATCH):
        batch = batch.to(device)
        z = model.encode(batch)
        squared = (model.decode(z) - to_unit_range(batch)).square()
        embeddings.append(z.cpu())
        errors.append(squared.flatten(1).mean(1).double().cpu())
    return torch.cat(embeddings).numpy(), torch.cat(errors).numpy()


def pca_mse(dataset: Dataset, components: int) -> float:
    """Test error of the best linear autoencoder of the same width."""
    from sklearn.decomposition import PCA

    train, test = (
        to_unit_range(part).flatten(1).numpy()
        for part in (dataset.train_images, dataset.test_images)
    )
    pca = PCA(min(components, *train.shape), random_state=0).fit(train)
    restored = pca.inverse_transform(pca.transform(test))
    return float(np.square(restored - test).mean())


def knn_accuracy(
    neighbours: int,
    train_embeddings: NDArray[np.float32],
    train_labels: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> float:
    """Share of test images whose label the nearest training embeddings vote for."""
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(neighbours).fit(train_embeddings, train_labels)
    return float(classifier.score(embeddings, labels))


def neighbourhood_trust(images: Tensor, embeddings: NDArray[np.float32]) -> float:
    """Trustworthiness of the first TRUSTWORTHINESS_SAMPLE embeddings, 5 neighbours each.

    Of very few images, as many neighbours as the measure is defined for: under half of them.
    """
    from sklearn.manifold import trustworthiness

    pixels = to_unit_range(images[:TRUSTWORTHINESS_SAMPLE]).flatten(1).numpy()
    neighbours = min(5, (len(pixels) - 1) // 2)
    sample = embeddings[:TRUSTWORTHINESS_SAMPLE]
    return float(trustworthiness(pixels, sample, n_neighbors=neighbours))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 1 where the card is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description="Compute a checkpoint's metrics again and compare them with its card.",
        epilog="example: python -m train.evaluate weights/mnist",
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("PINHOLE_DATA", "data")),
        help="where its dataset lies (default: $PINHOLE_DATA or data)",
    )
    options = parser.parse_args(arguments)
    try:
        return compare_with_card(options.checkpoint, options.data_dir)
    except (TrainError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1


def compare_with_card(folder: Path, data_dir: Path) -> int:
    """Print every metric beside the card's; 1 if one differs, else 0.

    Raises:
        TrainError: the checkpoint or its dataset can't be read, or the dataset is another.
    """
    checkpoint = load_checkpoint(folder)
    config, card = checkpoint.model.config, checkpoint.card
    dataset = load_dataset(
        config.dataset, data_dir, config.input_dim, config.image_size, skip_unreadable=True
    )
    if dataset.checksum != card["dataset"]["sha256"]:
        raise DatasetError(f"{data_dir} holds another {dataset.name} than the card tells of")
    metrics = evaluate(checkpoint.model, dataset).metrics
    wrong = [
        name
        for name in metrics | card["metrics"]
        if not np.isclose(metrics.get(name, np.nan), card["metrics"].get(name, np.nan), rtol=SAME)
    ]
    print(f"{'':<16} {'card':>8} {'now':>8}")
    for name in metrics | card["metrics"]:
        said, found = card["metrics"].get(name, np.nan), metrics.get(name, np.nan)
        print(f"{name:<16} {said:>8.4f} {found:>8.4f}{'  differs' if name in wrong else ''}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
