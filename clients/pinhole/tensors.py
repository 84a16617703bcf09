"""Arrays as bytes for the wire: application/x-npy, which numpy itself writes and reads."""

import io
import tokenize
from typing import Any

import numpy as np
from numpy.typing import NDArray

NPY = "application/x-npy"
HOSTILE = (TypeError, LookupError, SyntaxError, tokenize.TokenError, MemoryError)
# what numpy raises on headers that make no sense, besides ValueError


def pack(array: NDArray[Any]) -> bytes:
    """An array as the bytes of a .npy file, in C order."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def unpack(data: bytes) -> NDArray[Any]:
    """The array in the bytes of a .npy file.

    Raises:
        ValueError: they aren't one.
    """
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except HOSTILE as error:
        raise ValueError("not a .npy file") from error
    return array
