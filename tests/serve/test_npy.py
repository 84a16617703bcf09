"""Arrays as .npy, from callers whose headers may lie."""

import io
import struct

import numpy as np
import pytest

from serve.errors import InvalidRequest
from serve.wire.npy import read_npy, write_npy


def saved(array: np.ndarray) -> bytes:
    """What numpy.save writes."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_numpy_files_are_read_and_written() -> None:
    """numpy.save's bytes in, numpy.load's bytes out."""
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

    assert np.array_equal(read_npy(saved(array)), array)
    assert np.array_equal(np.load(io.BytesIO(write_npy(array))), array)


def lying(shape: str) -> bytes:
    """A .npy file whose header claims a shape that its four bytes of data don't have."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"data"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not a .npy"),
        (b"garbage", "not a .npy"),
        (lying("(1000, 1000, 1000, 1000)"), "promises 1,000,000,000,000 bytes of data, 4 came"),
        (lying("(3,)"), "promises 3 bytes of data, 4 came"),
        (lying("(-4,)"), "negative"),
        (lying("(0, -1)"), "negative"),
        (lying("(-2, -2)"), "negative"),
        (lying("(0, 10**30)"), "not a .npy"),
        (lying(f"(0, {10**30})")[:-4], "huge"),
        (lying("(True, 4)"), "axes"),
        (lying(f"(0{3 * ', 2147483647'})")[:-4], "at most 2,147,483,647 numbers"),
        (lying(f"({'1, ' * 70})"), "axes"),
        (lying("((("), "not a .npy"),
        (lying("(4,)").replace(b"|u1", b"|V0"), "plain numbers"),
        (lying("(4,)").replace(b"|u1", b"|S0"), "plain numbers"),
        (lying("(4,)").replace(b"'|u1'", b"('|u1',(2,))"), "not a .npy|plain numbers"),
        (lying("(4,)").replace(b"'|u1'", b"()"), "not a .npy|plain numbers"),
        (lying("(4,)").replace(b"'descr'", b"[]"), "not a .npy"),
        (lying("__import__('os')"), "not a .npy"),
        (saved(np.array([{}], object)), "plain numbers"),
        (saved(np.asfortranarray(np.ones((2, 3)))), "C order"),
    ],
)
def test_other_bodies_are_refused(body: bytes, message: str) -> None:
    """A .npy file that lies or isn't plain numbers is refused, and nothing of it is evaluated."""
    with pytest.raises(InvalidRequest, match=message):
        read_npy(body)
