"""An engine that runs large inputs in chunks, so that memory is bounded whatever the request."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.bundle.engine.checks import check_embeddings, check_images
from serve.bundle.manifest import ImageSpec, Manifest

Run = Callable[[NDArray[Any]], NDArray[np.float32]]  # one chunk of rows through one graph


class ChunkedEngine:
    """A model as two graphs; see protocol.Engine.

    Args:
        manifest: the model's.
        name, precision: as the protocol has them.
        encode, decode: run one chunk through the graph.
        size: images of 28 x 28 pixels in one chunk.
    """

    def __init__(
        self, manifest: Manifest, name: str, precision: str, encode: Run, decode: Run, size: int
    ) -> None:
        self.name, self.precision = name, precision
        self._encode, self._decode = encode, decode
        self._shape, self._width = manifest.image.shape, manifest.embedding_width
        self._size = chunk_size(size, manifest.image)

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[N, C, H, W] → float32[N, D]."""
        check_images(images, self._shape)
        return run_chunks(self._encode, images, (self._width,), self._size)

    def decode(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N, D] → float32[N, C, H, W] in [0, 1]."""
        check_embeddings(embeddings, self._width)
        return run_chunks(self._decode, embeddings, self._shape, self._size)


def run_chunks(
    run: Run, rows: NDArray[Any], row_shape: tuple[int, ...], size: int
) -> NDArray[np.float32]:
    """Run a graph over all ``rows``, ``size`` at a time.

    Args:
        run: gives one result of ``row_shape`` for each row.
        rows: contiguous or not, writable or not.
        row_shape: shape of one result.
        size: rows in one chunk.
    """
    result = np.empty((len(rows), *row_shape), np.float32)
    for start in range(0, len(rows), size):
        chunk = np.ascontiguousarray(rows[start : start + size])
        result[start : start + size] = run(chunk)
    return result


def chunk_size(images: int, spec: ImageSpec) -> int:
    """The chunk size in images, scaled so that every model's chunks have the same pixels.

    Args:
        images: the chunk size for images of 28 x 28 pixels.
        spec: the model's own image size.
    """
    return max(1, images * 28 * 28 // (spec.height * spec.width))
