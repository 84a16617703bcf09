"""Arrays as bytes for the wire: application/x-npy, which numpy itself writes and reads."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

NPY = "application/x-npy"


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
    except (TypeError, LookupError, SyntaxError, MemoryError) as error:  # of a hostile header
        raise ValueError("not a .npy file") from error
    return array
