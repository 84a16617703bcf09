"""The runner that embeds in this process: a bundle, its engine, no service.

Files are read by threads (Pillow lets others run meanwhile). On a CPU every core calls the engine
by itself, with one thread: cores that share one call wait for each other at every layer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.rows import Answer
from pinhole.jobs.runners import CHUNK_IMAGES, Model, Prepared

if TYPE_CHECKING:
    from serve.bundle import Bundle

CHUNK_BYTES = 4 << 20  # of pixels in one call


class LocalRunner:
    """An engine in this process; see Runner.

    Args:
        folder: the bundle.
        device: of serve.engine.DEVICES.
        precision: of serve.engine.PRECISIONS.
        score: compute each image's mse too.
        cores: of a CPU; None takes all that this process may use.

    Raises:
        JobError: the bundle is damaged, or the engine can't be had.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        precision: str = "fp32",
        score: bool = False,
        cores: int | None = None,
    ) -> None:
        try:
            from serve.bundle import load_bundle
            from serve.engine import available, check_golden, open_engine, usable_cores
            from serve.errors import ServeError
        except ImportError as error:
            raise JobError(
                f"--local needs {error.name}: pip install 'pinhole[serve,cpu]'"
            ) from error
        try:
            bundle = load_bundle(folder)
            device = available("onnxruntime")[0][0] if device == "auto" else device
            self.threads = (cores or usable_cores()) if device == "cpu" else 1
            threads = 1 if device == "cpu" else cores
            self._engine = open_engine(bundle, "onnxruntime", device, precision, threads=threads)
            check_golden(self._engine, bundle)
        except ServeError as error:
            raise JobError(str(error)) from error
        self._open(bundle, score)

    def _open(self, bundle: "Bundle", score: bool) -> None:
        """Take from the bundle what reading and embedding need."""
        from serve.errors import RequestError
        from serve.images import PixelBudget, read_image

        manifest = bundle.manifest
        self._spec, self._score = manifest.image, score
        self._read, self._budget, self._refused = read_image, PixelBudget, RequestError
        self.name = self._engine.name
        self.model = Model(manifest.digest, self._engine.precision, manifest.embedding_width)
        size = int(np.prod(self._spec.shape))
        self.chunk_images = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // size))

    def prepare(self, content: Prepared) -> Prepared | Fault:
        """A file's pixels."""
        if isinstance(content, np.ndarray):
            return self._check(content)
        try:
            return self._read(content, self._spec, self._budget())
        except self._refused as error:
            return Fault(type(error).__name__, str(error))

    def _check(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pixels as they are, if they are the model's."""
        if pixels.shape != self._spec.shape:
            raise JobError(
                f"the model takes uint8[N, {', '.join(map(str, self._spec.shape))}]; "
                f"the source holds uint8[N, {', '.join(map(str, pixels.shape))}]"
            )
        return pixels

    def embed(self, images: Sequence[Prepared | Fault]) -> list[Answer | Fault]:
        """One answer for each image."""
        pixels = np.stack([np.asarray(image) for image in images])
        embeddings = self._engine.embed(pixels)
        if not self._score:
            return [Answer(embedding) for embedding in embeddings]
        difference = self._engine.decode(embeddings) - pixels / np.float32(255)
        errors = np.square(difference).mean(axis=(1, 2, 3))
        return [Answer(row, float(mse)) for row, mse in zip(embeddings, errors, strict=True)]

    def confirm(self) -> None:
        """A bundle that was opened doesn't change."""

    def stop(self) -> None:
        """Nothing waits here."""


def model_of(folder: Path, precision: str) -> Model:
    """What a bundle embeds with, without opening an engine.

    Raises:
        JobError: the bundle is damaged, or isn't offered in this precision.
    """
    try:
        from serve.bundle import load_bundle
        from serve.errors import BundleError
    except ImportError as error:
        raise JobError(f"a bundle needs {error.name}: pip install 'pinhole[serve]'") from error
    try:
        manifest = load_bundle(folder).manifest
    except BundleError as error:
        raise JobError(str(error)) from error
    if precision not in manifest.tolerances:
        raise JobError(
            f"this model is offered in {', '.join(manifest.tolerances)}, not {precision}"
        )
    return Model(manifest.digest, precision, manifest.embedding_width)
