"""How good a model is on images it never saw, and what serving needs to know about that.

Metrics, all on the test images: the reconstruction error beside that of PCA with as many
components; nearest-neighbour accuracy in the embedding space (fit on the training images); and
trustworthiness, the share of each embedding's neighbours that were neighbours as images
(Venna & Kaski 2001).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.data import Dataset
from train.loop import EVALUATION_BATCH
from train.model import Autoencoder, to_unit_range

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
        "knn1_accuracy": knn_accuracy(1, train_embeddings, train_labels, embeddings, labels),
        "knn5_accuracy": knn_accuracy(5, train_embeddings, train_labels, embeddings, labels),
        "trustworthiness": neighbourhood_trust(dataset.test_images, embeddings),
    }
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
    pca = PCA(components, svd_solver="covariance_eigh").fit(train)
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
    """Trustworthiness of the first TRUSTWORTHINESS_SAMPLE embeddings, 5 neighbours each."""
    from sklearn.manifold import trustworthiness

    pixels = to_unit_range(images[:TRUSTWORTHINESS_SAMPLE]).flatten(1).numpy()
    return float(trustworthiness(pixels, embeddings[:TRUSTWORTHINESS_SAMPLE], n_neighbors=5))
