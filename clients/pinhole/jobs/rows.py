"""One row of a job's result."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pinhole.jobs.errors import Fault


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer for one image.

    Attributes:
        embedding: float32[D].
        mse: mean squared error per pixel of its reconstruction; None in a job without --score,
            as are the next two.
        percentile: share of the model's held-out images that were reconstructed better.
        outlier: whether the percentile is above the job's, or the embedding is outside the range
            of the held-out images.
    """

    embedding: NDArray[np.float32]
    mse: float | None = None
    percentile: float | None = None
    outlier: bool | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one input.

    Attributes:
        number: the input's place in its source, from 0.
        path: the input's name.
        sha256: of the file, or of an array's pixels; None if the input couldn't be read.
        result: the model's answer, or why there is none.
        stamp: by which a later run knows the input without reading it; "" if it has none.
    """

    number: int
    path: str
    sha256: str | None
    result: Answer | Fault
    stamp: str = ""
