"""Arrays as bytes for HTTP: application/x-npy, which numpy itself writes and reads."""

import io
import tokenize
from typing import Any

import numpy as np
from numpy.typing import NDArray

NPY = "application/x-npy"

# What numpy raises for a header that makes no sense: numpy reads headers with Python's own parser.
BAD_HEADER = (
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    tokenize.TokenError,
    MemoryError,
    RecursionError,
)


def pack(array: NDArray[Any]) -> bytes:
    """An array as the bytes of a .npy file, in C order."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def unpack(data: bytes) -> NDArray[Any]:
    """The array in the bytes of a .npy file.

    Raises:
        ValueError: the bytes are no .npy file.
    """
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except BAD_HEADER as error:
        raise ValueError("not a .npy file") from error
    return array
