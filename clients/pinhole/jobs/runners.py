"""What embeds a job's images: a service, or a bundle in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pinhole.jobs.errors import Fault
from pinhole.jobs.rows import Answer
from serve.bundle.manifest import ImageSpec

Prepared = bytes | NDArray[np.uint8]  # A file's bytes, or pixels uint8[C, H, W].

CHUNK_IMAGES = 256


@dataclass(frozen=True)
class Model:
    """The model that embeds; rows of different models don't belong into one result.

    Attributes:
        digest: sha256 that names the model.
        precision: of the arithmetic, e.g. ``fp32``.
        width: D of the embeddings.
        image: the pictures that it takes; None if its service doesn't say.
    """

    digest: str
    precision: str
    width: int
    image: ImageSpec | None = None


class Runner(Protocol):
    """Embeds chunks of images.

    Attributes:
        name: where it embeds, for _job.json.
        model: what it embeds with.
        threads: the most threads that may call ``embed`` at a time.
        chunk_images: the most images in one call of ``embed``.
    """

    name: str
    model: Model
    threads: int
    chunk_images: int

    def prepare(self, content: Prepared) -> Prepared | Fault:
        """Turn a file, or pixels, into what ``embed`` takes; called in the reading threads."""

    def embed(self, images: Sequence[Prepared | Fault]) -> list[Answer | Fault]:
        """One answer for each of these prepared images, in order.

        Raises:
            PinholeError: the service has been unavailable for too long.
            JobError: the model takes no images of this form.
        """

    def confirm(self) -> None:
        """Raise JobError unless everything so far was embedded by ``model``."""

    def stop(self) -> None:
        """Make every call of ``embed`` that waits for a service raise its error now."""
