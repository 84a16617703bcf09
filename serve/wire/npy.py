"""Arrays as application/x-npy (NumPy's .npy, NEP 1), read without trusting what they claim."""

import io
import math

import numpy as np
from numpy.typing import NDArray

from serve.errors import InvalidRequest

MAX_HEADER_BYTES = 1_000


def read_npy(body: bytes) -> NDArray[np.generic]:
    """Read an array as a view of ``body``.

    ``np.load`` would allocate whatever shape the header claims; here the claim has to match the
    bytes that came.

    Raises:
        InvalidRequest: not a .npy file of plain numbers, or its length isn't what its header says.
    """
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(file, max_header_size=MAX_HEADER_BYTES)
    except (ValueError, KeyError) as error:
        raise InvalidRequest("the body is not a .npy file") from error
    if dtype.hasobject or fortran_order:
        raise InvalidRequest("a .npy body must hold plain numbers in C order")
    expected = math.prod(shape) * dtype.itemsize
    actual = len(body) - file.tell()
    if actual != expected:
        raise InvalidRequest(
            f"the .npy header promises {expected:,} bytes of data, {actual:,} came"
        )
    return np.frombuffer(body, dtype, offset=file.tell()).reshape(shape)


def write_npy(array: NDArray[np.generic]) -> bytes:
    """An array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()
