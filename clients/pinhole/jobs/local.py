"""The runner that embeds in this process: a bundle and its engine, without a service.

Threads read the files; Pillow and libspng release the GIL meanwhile. On a CPU every core calls the
engine from a thread of its own, and the engine computes each call with one thread: cores that share
a call wait for each other at every layer.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.rows import Answer
from pinhole.jobs.runners import CHUNK_IMAGES, Model, Prepared
from serve.bundle.engine import onnx
from serve.bundle.engine.checks import check_golden
from serve.bundle.engine.host import usable_cores
from serve.bundle.engine.opening import open_engine
from serve.bundle.errors import RequestError, ServeError
from serve.bundle.images import PixelBudget, read_image
from serve.bundle.manifest import load_bundle
from serve.bundle.score import PERCENTILE_DIGITS, score_each

CHUNK_BYTES = 4 << 20  # The most pixels of one call, for models of large images.


class LocalRunner:
    """An engine in this process; see Runner.

    Args:
        folder: the bundle.
        device: one of serve.bundle.engine.protocol.DEVICES.
        precision: one of serve.bundle.engine.protocol.PRECISIONS.
        score: score each image too; see Identity.
        cores: number of CPU cores to use; None takes all that this process may use.

    Raises:
        JobError: the bundle is damaged, or the engine can't be opened.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        precision: str = "fp32",
        score: float = 0,
        cores: int | None = None,
    ) -> None:
        try:
            bundle = load_bundle(folder)
            device = onnx.available()[0][0] if device == "auto" else device
            self.threads = (cores or usable_cores()) if device == "cpu" else 1
            threads = 1 if device == "cpu" else cores
            self._engine = open_engine(bundle, "onnxruntime", device, precision, threads=threads)
            check_golden(self._engine, bundle)
        except ServeError as error:
            raise JobError(str(error)) from error
        self.name, self._score, self._spec = self._engine.name, score, bundle.manifest.image
        self._calibration = bundle.manifest.calibration
        width = bundle.manifest.embedding_width
        self.model = Model(bundle.manifest.digest, self._engine.precision, width, self._spec)
        size = int(np.prod(self._spec.shape))
        self.chunk_images = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // size))

    def prepare(self, content: Prepared) -> Prepared | Fault:
        """A file's pixels, or an array's as they are."""
        if isinstance(content, np.ndarray):
            return content
        try:
            return read_image(content, self._spec, PixelBudget())
        except RequestError as error:
            return Fault(type(error).__name__, str(error))

    def embed(self, images: Sequence[Prepared | Fault]) -> list[Answer | Fault]:
        """One answer for each image."""
        pixels = np.stack([np.asarray(image) for image in images])
        embeddings = self._engine.embed(pixels)
        if not self._score:
            return [Answer(embedding) for embedding in embeddings]
        decoded = self._engine.decode(embeddings)
        scores = score_each(pixels, decoded, embeddings, self._calibration)
        answers = list[Answer | Fault]()
        for embedding, (mse, exact, outside) in zip(embeddings, scores, strict=True):
            rank = round(exact, PERCENTILE_DIGITS)  # as many digits as a service tells
            answers.append(Answer(embedding, mse, rank, rank > self._score or outside))
        return answers

    def confirm(self) -> None:
        """Do nothing: a bundle that was opened doesn't change."""

    def stop(self) -> None:
        """Do nothing: no call of ``embed`` waits for a service."""
