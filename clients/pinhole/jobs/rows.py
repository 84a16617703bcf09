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
        mse: mean squared error per pixel of its reconstruction; None in a job without --score.
    """

    embedding: NDArray[np.float32]
    mse: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one input.

    Attributes:
        number: the input's place in its source, from 0.
        path: the input's name.
        sha256: of the file, or of an array's pixels; None if the input couldn't be read.
        result: the model's answer, or why there is none.
    """

    number: int
    path: str
    sha256: str | None
    result: Answer | Fault
