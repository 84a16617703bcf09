"""How unlike the training data an image is, judged by what the model made of held-out images."""

import numpy as np
from numpy.typing import NDArray

from serve.bundle.manifest import Calibration

OUTLIER_PERCENTILE = 99.0  # one in a hundred images of the known kind is called an outlier


def mean_squared_errors(
    images: NDArray[np.uint8], reconstructions: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The reconstruction error of each image: float32[N], per pixel, pixels in [0, 1].

    Args:
        images: uint8[N, C, H, W].
        reconstructions: float32[N, C, H, W] in [0, 1], of these images.
    """
    difference = reconstructions - images / np.float32(255)
    errors: NDArray[np.float32] = np.square(difference).mean(axis=(1, 2, 3))
    return errors


def percentile(mse: float, calibration: Calibration) -> float:
    """Share of held-out images, in percent, whose reconstruction error was below ``mse``."""
    return float(np.interp(mse, calibration.mse_quantiles, np.arange(101)))


def is_outlier(mse: float, embedding: NDArray[np.float32], calibration: Calibration) -> bool:
    """Whether the error is in the top percent, or the embedding lies beyond all held-out images."""
    outside = (embedding < calibration.embedding_min) | (embedding > calibration.embedding_max)
    return percentile(mse, calibration) > OUTLIER_PERCENTILE or bool(outside.any())
