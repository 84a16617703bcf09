"""Arrays as bytes for the wire: application/x-npy, which numpy itself writes and reads."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

NPY = "application/x-npy"


def pack(array: NDArray[Any]) -> bytes:
    """An array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def unpack(data: bytes) -> NDArray[Any]:
    """The array in the bytes of a .npy file.

    Raises:
        ValueError: they aren't one.
    """
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array
