"""One line of a job's result, and what makes it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pinhole.jobs.errors import Fault


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model makes of one image.

    Attributes:
        embedding: float32[D].
        mse: mean squared error per pixel of its reconstruction; None unless asked for.
    """

    embedding: NDArray[np.float32]
    mse: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line.

    Attributes:
        number: of the input in its source.
        path: its name.
        sha256: of the file, or of an array's pixels; None where it couldn't be read.
        result: the answer, or why there is none.
    """

    number: int
    path: str
    sha256: str | None
    result: Answer | Fault
