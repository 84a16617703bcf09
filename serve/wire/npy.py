"""Arrays as application/x-npy (NumPy's .npy, NEP 1), read without trusting their header."""

import io
import math
import tokenize

import numpy as np
from numpy.typing import NDArray

from serve.errors import InvalidRequest

MAX_HEADER_BYTES = 1_000
MAX_AXES = 4
LARGEST_SIZE = 2**31 - 1  # most numbers along one axis, and in the whole array
DTYPES = tuple(np.dtype(name) for name in ("u1", "i4", "i8", "f2", "f4", "f8"))
# What numpy is known to raise on hostile headers, which it reads with Python's own parser.
UNREADABLE = (ValueError, TypeError, LookupError, SyntaxError, tokenize.TokenError)


def read_npy(body: bytes) -> NDArray[np.generic]:
    """Read an array as a view of ``body``.

    ``np.load`` would allocate memory for whatever shape the header claims. Here the header has to
    match the bytes that follow it.

    Raises:
        InvalidRequest: not a .npy file of plain numbers, or not as long as its header says.
    """
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(file, max_header_size=MAX_HEADER_BYTES)
    except UNREADABLE as error:
        raise InvalidRequest("the body is not a .npy file") from error
    if dtype not in DTYPES or fortran_order:
        raise InvalidRequest("a .npy body must hold plain numbers in C order")
    if len(shape) > MAX_AXES or not all(type(n) is int and 0 <= n <= LARGEST_SIZE for n in shape):
        raise InvalidRequest(f"a .npy body has at most {MAX_AXES} axes, none negative or huge")
    expected, actual = math.prod(shape) * dtype.itemsize, len(body) - file.tell()
    if actual != expected:
        raise InvalidRequest(
            f"the .npy header promises {expected:,} bytes of data, {actual:,} came"
        )
    if math.prod(n for n in shape if n) > LARGEST_SIZE:
        raise InvalidRequest(f"a .npy body has at most {LARGEST_SIZE:,} numbers")
    if actual == 0:
        return np.empty(shape, dtype)  # np.frombuffer refuses an empty buffer
    return np.frombuffer(body, dtype, offset=file.tell()).reshape(shape)


def write_npy(array: NDArray[np.generic]) -> bytes:
    """An array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()
