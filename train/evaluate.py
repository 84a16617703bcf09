"""How good a model is on the test images, and what serving needs to know about that.

``python -m train.evaluate CHECKPOINT`` computes a checkpoint's metrics again, from the weights and
the data, and exits 1 if a metric differs from the checkpoint's card.

The metrics, all on the test images:

- the reconstruction error, that of PCA with as many components, and that of the mean image;
- the accuracy of nearest neighbours among the embeddings of the training images, if the test images
  have more than one label that training images have too; of other labels none are counted;
- trustworthiness, the share of each embedding's neighbours that are neighbours as images too (Venna
  & Kaski 2001).
"""

import argparse
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serve.bundle.score import relative_errors
from train.checkpoint import load_checkpoint
from train.data import add_data_dir, load_dataset
from train.dataset import Dataset
from train.errors import INTERRUPTED, DatasetError, TrainError
from train.loop import evaluation_batches
from train.model import Autoencoder, to_unit_range
from train.pca import Pca, fit_pca

# Relative tolerance when metrics are compared with the card: another processor's kernels add in
# another order.
METRIC_RTOL = 1e-3
# Most images that trustworthiness is computed on: the distance matrix grows with their square.
TRUSTWORTHINESS_SAMPLE = 2_000
COLUMNS = 500  # pixels whose distances are added up at a time: 8 MB of float64 for such a sample


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` found.

    Attributes:
        metrics: name → value; every ``mse`` is per pixel, pixels in [0, 1].
        errors: float64[N], the mse of each test image.
        mse_quantiles: float64[101], the 0th to 100th percentile of the mse of the test images.
        relative_quantiles: float64[101], the same of their relative error; see serve.bundle.score.
        embeddings: float32[N, D], those of the test images.
        labels: int64[N], those of the test images.
    """

    metrics: dict[str, float]
    errors: NDArray[np.float64]
    mse_quantiles: NDArray[np.float64]
    relative_quantiles: NDArray[np.float64]
    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]


def evaluate(model: Autoencoder, dataset: Dataset) -> Evaluation:
    """Measure ``model`` on the test half of ``dataset``."""
    found = score(model, dataset)
    pca = fit_pca(dataset.train_images, found.embeddings.shape[1])
    return replace(found, metrics=found.metrics | judge(model, dataset, found, pca))


def score(model: Autoencoder, dataset: Dataset) -> Evaluation:
    """What a checkpoint can't do without; its only metric is the mse."""
    embeddings, errors = embed_and_score(model, dataset.test_images)
    relative = relative_errors(dataset.test_images.numpy(), errors.astype(np.float32))
    quantiles = np.quantile([errors, relative], np.linspace(0, 1, 101), axis=1).T
    metrics = {"mse": float(errors.mean())}
    labels = dataset.test_labels.numpy()
    return Evaluation(metrics, errors, quantiles[0], quantiles[1], embeddings, labels)


def judge(model: Autoencoder, dataset: Dataset, found: Evaluation, pca: Pca) -> dict[str, float]:
    """The other metrics: how the model compares, and what its embeddings are worth.

    Args:
        model: on the CPU.
        dataset: the images.
        found: what ``score`` found.
        pca: of the training images.
    """
    as_mean, as_pca = pca.errors(dataset.test_images, found.embeddings.shape[1])
    metrics = {
        "pca_mse": as_pca.mean().item(),
        "mean_image_mse": as_mean.mean().item(),
        "trustworthiness": neighbourhood_trust(dataset.test_images, found.embeddings),
    }
    train_labels = dataset.train_labels.numpy()
    # A class without a training image has no neighbours: folders may have been kept together.
    known = np.isin(found.labels, train_labels)
    if len(np.unique(found.labels[known])) > 1:
        train_embeddings, _ = embed_and_score(model, dataset.train_images)
        for k in (1, 5):
            metrics[f"knn{k}_accuracy"] = knn_accuracy(
                k, train_embeddings, train_labels, found.embeddings[known], found.labels[known]
            )
    return metrics


@torch.inference_mode()
def embed_and_score(
    model: Autoencoder, images: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """uint8[N, C, H, W] → embeddings float32[N, D] and each image's mse float64[N]."""
    device = next(model.parameters()).device
    embeddings, errors = [], []
    for batch in evaluation_batches(images):
        batch = batch.to(device)
        z = model.encode(batch)
        squared = (model.decode(z) - to_unit_range(batch)).square()
        embeddings.append(z.cpu())
        errors.append(squared.flatten(1).mean(1).double().cpu())
    return torch.cat(embeddings).numpy(), torch.cat(errors).numpy()


def knn_accuracy(
    neighbours: int,
    train_embeddings: NDArray[np.float32],
    train_labels: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> float:
    """Share of test images whose label the nearest training embeddings vote for."""
    from sklearn.neighbors import KNeighborsClassifier

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # of small classes
        classifier = KNeighborsClassifier(neighbours).fit(train_embeddings, train_labels)
        return float(classifier.score(embeddings, labels))


def neighbourhood_trust(images: Tensor, embeddings: NDArray[np.float32]) -> float:
    """Trustworthiness of TRUSTWORTHINESS_SAMPLE random embeddings, 5 neighbours each.

    Random, because a folder's images are sorted by class: the first of them have few classes. The
    measure is only defined for fewer neighbours than half of the images.
    """
    from sklearn.manifold import trustworthiness

    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    sample = order[:TRUSTWORTHINESS_SAMPLE]
    away = distances(images[sample])
    neighbours = min(5, (len(away) - 1) // 2)
    chosen = embeddings[sample.numpy()]
    return float(trustworthiness(away, chosen, n_neighbors=neighbours, metric="precomputed"))


def distances(images: Tensor) -> NDArray[np.float64]:
    """Between all pairs of uint8[N, C, H, W]: float64[N, N], added up a few pixels at a time."""
    products = torch.zeros(len(images), len(images), dtype=torch.float64)
    for columns in torch.split(images.flatten(1), COLUMNS, dim=1):
        values = columns.double()
        products.addmm_(values, values.T)
    squares = products.diagonal()
    squared = squares[:, None] + squares - 2 * products  # whole numbers, so nothing is rounded
    return squared.sqrt().numpy()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code, which is 1 if a metric differs from the card."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description="Compute a checkpoint's metrics again and compare them with its card.",
        epilog="example: python -m train.evaluate weights/mnist",
    )
    parser.add_argument("checkpoint", type=Path, help="folder that python -m train wrote")
    add_data_dir(parser, "folder that its dataset is read from or downloaded to")
    options = parser.parse_args(arguments)
    try:
        return compare_with_card(options.checkpoint, options.data_dir)
    except (TrainError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evaluate: stopped", file=sys.stderr)
        return INTERRUPTED


def compare_with_card(folder: Path, data_dir: Path) -> int:
    """Print every metric beside the card's; returns 1 if a metric differs, else 0.

    Raises:
        TrainError: the checkpoint or its dataset can't be read, or the dataset isn't the card's.
    """
    checkpoint = load_checkpoint(folder)
    config, card = checkpoint.model.config, checkpoint.card
    dataset = load_dataset(
        config.dataset,
        data_dir,
        config.input_dim,
        config.image_size,
        card["framing"],
        skip_unreadable=True,
        split_by=card["split_by"],
    )
    if dataset.checksum != card["dataset"]["sha256"]:
        raise DatasetError(
            f"{data_dir} holds other images than the checkpoint was trained on: some have been "
            "added, removed, renamed or changed, or --data-dir is another folder"
        )
    metrics = evaluate(checkpoint.model, dataset).metrics
    all_equal = True
    print(f"{'':<16} {'card':>8} {'now':>8}")
    for name in metrics | card["metrics"]:
        expected, found = card["metrics"].get(name, np.nan), metrics.get(name, np.nan)
        equal = bool(np.isclose(found, expected, rtol=METRIC_RTOL))  # a missing metric is NaN
        print(f"{name:<16} {expected:>8.4f} {found:>8.4f}{'' if equal else '  differs'}")
        all_equal = all_equal and equal
    return 0 if all_equal else 1


if __name__ == "__main__":
    sys.exit(main())
