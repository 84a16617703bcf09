"""How unlike the training data an image is, from what held-out images looked like.

An image with little in it can't be remembered badly: a page of tiny digits, or one grey, has a
small mse whatever the decoder draws. So images are ranked by their *relative error*, the mse over
the root of the image's mean square. docs/anomaly.md compares the two.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from serve.bundle.manifest import Calibration

OUTLIER_PERCENTILE = 99.0  # one in a hundred images of the known kind is called an outlier
PERCENTILE_DIGITS = 4  # after the decimal point, where images are scored without pictures
DARKEST = 0.01  # added to the mean square, or every black image would be infinitely strange

Floats = NDArray[np.float32]


def score_each(
    images: NDArray[np.uint8],
    reconstructions: Floats,
    embeddings: Floats,
    calibration: Calibration,
) -> Iterator[tuple[float, float, bool]]:
    """The mse of each image, its percentile, and whether its embedding is outside.

    Args:
        images: uint8[N, C, H, W].
        reconstructions: float32[N, C, H, W] in [0, 1], of these images.
        embeddings: float32[N, D], of these images.
        calibration: of the model.
    """
    errors = mean_squared_errors(images, reconstructions)
    relative = relative_errors(images, errors)
    for mse, error, embedding in zip(errors, relative, embeddings, strict=True):
        yield float(mse), percentile(float(error), calibration), is_outside(embedding, calibration)


def mean_squared_errors(images: NDArray[np.uint8], reconstructions: Floats) -> Floats:
    """The reconstruction error of each image: float32[N], per pixel, pixels in [0, 1].

    Args:
        images: uint8[N, C, H, W].
        reconstructions: float32[N, C, H, W] in [0, 1], of these images.
    """
    difference = reconstructions - images / np.float32(255)
    errors: Floats = np.square(difference).mean(axis=(1, 2, 3))
    return errors


def relative_errors(images: NDArray[np.uint8], errors: Floats) -> Floats:
    """The mse of each image over the root of its mean square: float32[N].

    Args:
        images: uint8[N, C, H, W].
        errors: float32[N], the images' mse.
    """
    rows = images.reshape(len(images), -1)
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)  # without a copy of the images
    mean_squares = squares / (255**2 * rows.shape[1])
    relative: Floats = (errors / np.sqrt(mean_squares + DARKEST)).astype(np.float32)
    return relative


def percentile(relative_error: float, calibration: Calibration) -> float:
    """Share of held-out images, in percent, whose relative error was smaller.

    An image that overflowed half precision, whose error is NaN, has 100.
    """
    error = np.nan_to_num(relative_error, nan=np.inf)
    return float(np.interp(error, calibration.relative_quantiles, np.arange(101)))


def positions(embedding: Sequence[float], calibration: Calibration) -> list[float]:
    """Where each of D numbers lies in the range of held-out images, whose ends are 0 and 1.

    A number that is the same for every held-out image lies at 0 where it is the same again.
    """
    ranges = zip(embedding, calibration.embedding_min, calibration.embedding_max, strict=True)
    return [(number - least) / (greatest - least or 1.0) for number, least, greatest in ranges]


def is_outside(embedding: Floats, calibration: Calibration) -> bool:
    """Whether the embedding is outside the range of held-out images; NaN is nowhere."""
    inside = (embedding >= calibration.embedding_min) & (embedding <= calibration.embedding_max)
    return not inside.all()
