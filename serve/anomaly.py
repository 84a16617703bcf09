"""How unlike the training data an image is, from what held-out images looked like."""

import numpy as np
from numpy.typing import NDArray

from serve.bundle import Calibration

OUTLIER_PERCENTILE = 99.0  # one in a hundred images of the known kind is called an outlier


def percentile(mse: float, calibration: Calibration) -> float:
    """Share of held-out images, in percent, whose reconstruction error was below ``mse``."""
    return float(np.interp(mse, calibration.mse_quantiles, np.arange(101)))


def is_outlier(mse: float, embedding: NDArray[np.float32], calibration: Calibration) -> bool:
    """Whether the error is in the top percent, or the embedding is where no image ever was."""
    outside = (embedding < calibration.embedding_min) | (embedding > calibration.embedding_max)
    return percentile(mse, calibration) > OUTLIER_PERCENTILE or bool(outside.any())
