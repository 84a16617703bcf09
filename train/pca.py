"""PCA, the best linear autoencoder: what a model has to beat, and how wide an embedding pays.

The images are read in chunks of a few megabytes, and neither they nor their covariance are ever
held in memory as floats: 5,000 colour pictures of 128 x 128 would take a gigabyte, their covariance
ten. So the principal axes are found by subspace iteration (Halko, Martinsson & Tropp 2011, section
4.5), which needs a few passes over the images and as many vectors as there are axes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from train.model import to_unit_range

CHUNK = 1_000_000  # numbers in a chunk of images: 4 MB in float32
AXES = 64  # fewest axes that are looked for, so that wider embeddings can be suggested
SPARE_AXES = 16  # further vectors that the iteration turns, so that the last axis is right too
PASSES = 3  # of the iteration: the mse of PCA is then right to 1e-5


@dataclass(frozen=True)
class Pca:
    """The principal axes of a set of images with P values each.

    Attributes:
        mean: float32[P], the mean image, pixels in [0, 1].
        axes: float32[P, K], orthonormal, those of most variance first.
    """

    mean: Tensor
    axes: Tensor

    def errors(self, images: Tensor, components: int) -> tuple[Tensor, Tensor]:
        """The mse of each of uint8[N, C, H, W] as the mean image, and as ``components`` numbers.

        Returns:
            float64[N] twice.
        """
        as_mean, along = [], []
        for part in centred(images, self.mean):
            as_mean.append(part.double().square().mean(1))
            along.append(
                (part @ self.axes[:, :components]).double().square().sum(1) / part.shape[1]
            )
        mean = torch.cat(as_mean)
        return mean, mean - torch.cat(along)

    def kept(self, images: Tensor) -> Tensor:
        """The share of what sets images apart from the mean image along the first 1, 2, … K axes.

        Args:
            images: uint8[N, C, H, W]; of images that PCA hasn't seen, it keeps less.

        Returns:
            float64[K], growing.
        """
        whole, along = 0.0, torch.zeros(self.axes.shape[1], dtype=torch.float64)
        for part in centred(images, self.mean):
            whole += part.square().sum(dtype=torch.float64).item()
            along += (part @ self.axes).square().sum(0, dtype=torch.float64)
        # Of images that are all alike nothing is lost, however few numbers are kept.
        return along.cumsum(0) / whole if whole else torch.ones_like(along)


def fit_pca(images: Tensor, components: int) -> Pca:
    """Find ``components`` axes, or AXES if that is more, of uint8[N, C, H, W] on the CPU."""
    count, width = len(images), images[0].numel()
    kept = min(max(components, AXES), count, width)
    turned = min(kept + SPARE_AXES, count, width)
    mean = mean_image(images)
    basis = torch.randn(width, turned, generator=torch.Generator().manual_seed(0))
    for _ in range(PASSES):
        product = torch.zeros_like(basis)
        for part in centred(images, mean):
            product += part.T @ (part @ basis)
        basis = torch.linalg.qr(product).Q
    covariance = torch.zeros(turned, turned, dtype=torch.float64)
    for part in centred(images, mean):
        places = (part @ basis).double()
        covariance += places.T @ places
    _, turn = torch.linalg.eigh(covariance)  # the axis of most variance is the last
    return Pca(mean, basis @ turn.float().flip(1)[:, :kept])


def mean_image(images: Tensor) -> Tensor:
    """float32[P], pixels in [0, 1], of uint8[N, C, H, W] with P values each."""
    total = torch.zeros(images[0].numel(), dtype=torch.float64)
    for part in chunks(images):
        total += part.sum(0, dtype=torch.float64).flatten()
    return (total / len(images) / 255).float()


def centred(images: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """Chunks of images without their mean: float32[n, P], pixels in [0, 1]."""
    return (to_unit_range(part).flatten(1).sub_(mean) for part in chunks(images))


def chunks(images: Tensor) -> tuple[Tensor, ...]:
    """Cut uint8[N, C, H, W] into chunks of at most CHUNK numbers, or of one image."""
    return torch.split(images, max(1, CHUNK // images[0].numel()))
