"""Large inputs run in chunks, so that memory is bounded whatever the request."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.bundle.manifest import ImageSpec

Run = Callable[[NDArray[Any]], NDArray[np.float32]]  # one chunk of rows through one graph


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
