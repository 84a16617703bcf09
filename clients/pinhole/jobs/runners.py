"""What embeds a job's images: a service, or this process. Ray's workers are of the second kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pinhole.jobs.errors import Fault
from pinhole.jobs.rows import Answer

Prepared = bytes | NDArray[np.uint8]  # a file, or uint8[C, H, W]

CHUNK_IMAGES = 256


@dataclass(frozen=True)
class Model:
    """What embeds; rows of different ones don't belong into one result.

    Attributes:
        digest: of the model.
        precision: of its arithmetic.
        width: D.
    """

    digest: str
    precision: str
    width: int


class Runner(Protocol):
    """Embeds chunks of images.

    Attributes:
        name: for job.json: where it runs.
        model: what it embeds with.
        threads: how many may call ``embed`` at a time.
        chunk_images: the most images of one call.
    """

    name: str
    model: Model
    threads: int
    chunk_images: int

    def prepare(self, content: Prepared) -> Prepared | Fault:
        """Make of a file, or of pixels, what ``embed`` takes; called by the readers."""

    def embed(self, images: Sequence[Prepared | Fault]) -> list[Answer | Fault]:
        """One answer for each of these prepared images, in order.

        Raises:
            PinholeError: the service has gone for too long.
            JobError: no such image fits the model.
        """

    def confirm(self) -> None:
        """Raise JobError unless all that was embedded so far was embedded by ``model``."""

    def stop(self) -> None:
        """Give up waiting; calls of ``embed`` that wait for a service raise."""
