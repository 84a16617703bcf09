"""PBM, PGM and PPM files → pixels, whatever the value of white (https://netpbm.sourceforge.net/doc).

Pillow isn't used: it reads white other than 255 and 65535 in a loop in Python, and widens greys of
more than 8 bits to 32.
"""

import re
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.bundle.errors import InvalidImage
from serve.bundle.pictures.parts import truncated
from serve.bundle.pictures.samples import Spend, declare, to_bytes

Sample = TypeVar("Sample", bound=np.generic)

SPACE = rb"(?:[ \t\n\v\f\r]|#[^\n\r]*+[\n\r])++"
HEADER = re.compile(rb"P([1-6])" + SPACE + rb"(\d{1,9})" + SPACE + rb"(\d{1,9})")
WHITE = re.compile(SPACE + rb"(\d{1,9})")
COMMENT = re.compile(rb"#[^\n\r]*")
NO_NUMBER = re.compile(rb"[^\d \t\n\v\f\r]")


def read_pnm(data: bytes, spend: Spend) -> Image.Image:
    """A PBM, PGM or PPM → a picture of mode "L" or "RGB"; of several in one file, the first.

    Raises:
        InvalidImage: damaged, truncated, or refused by ``spend``.
    """
    header = HEADER.match(data)
    if header is None:
        raise damaged_header(data)
    kind, width, height = (int(number) for number in header.groups())
    at, white = header.end(), 1
    if kind not in (1, 4):
        at, white = read_white(data, at)
    declare("PPM", width, height, spend)
    shape = (height, width, 3) if kind in (3, 6) else (height, width)
    if kind in (1, 2, 3):
        samples = plain_samples(data[at:], shape, one_digit=kind == 1)
    else:
        samples = raw_samples(data[at + 1 :], shape, white, packed=kind == 4)
    pixels = to_bytes(samples, white)
    return Image.fromarray(255 - pixels if kind in (1, 4) else pixels)  # in a PBM, 1 is black


def damaged_header(data: bytes) -> InvalidImage:
    """The error of a file without a width and a height."""
    if data.startswith(b"Pf"):
        return InvalidImage("greys of 32 bits are not read; send 8 or 16 bits a channel")
    return InvalidImage("the PPM is damaged: its header has no width and height")


def read_white(data: bytes, at: int) -> tuple[int, int]:
    """Where the header ends, and the value of white, "maxval"."""
    found = WHITE.match(data, at)
    white = int(found[1]) if found else 0
    if found is None or not 0 < white < 65536:
        raise InvalidImage("the PPM's maxval isn't between 1 and 65535")
    return found.end(), white


def plain_samples(text: bytes, shape: tuple[int, ...], one_digit: bool) -> NDArray[np.generic]:
    """Samples written as decimal numbers; those of a PBM are digits that needn't be spaced."""
    text = COMMENT.sub(b"", text)
    if NO_NUMBER.search(text):
        raise InvalidImage("the PPM is damaged: a sample is not a number")
    count = int(np.prod(shape))
    numbers: NDArray[np.generic]
    if one_digit:
        digits = np.frombuffer(text, np.uint8)
        numbers = digits[digits >= ord("0")][:count] - ord("0")
    elif len(text) < 2 * count - 1 or not text.strip():
        raise truncated("PPM")
    else:
        numbers = np.fromstring(text, np.int64, count, sep=" ")
    if numbers.size < count:
        raise truncated("PPM")
    return numbers.reshape(shape)


def raw_samples(
    data: bytes, shape: tuple[int, ...], white: int, packed: bool
) -> NDArray[np.generic]:
    """Samples of 1 bit, 8 bits, or 16 bits with the high byte first."""
    if packed:
        rows = whole(data, np.dtype(np.uint8), (shape[0], -(-shape[1] // 8)))
        return np.unpackbits(rows, axis=1, count=shape[1])
    if white < 256:
        return whole(data, np.dtype(np.uint8), shape)
    return whole(data, np.dtype(np.uint16).newbyteorder(">"), shape)


def whole(data: bytes, dtype: np.dtype[Sample], shape: tuple[int, ...]) -> NDArray[Sample]:
    """Bytes as an array; refused where some are missing."""
    count = int(np.prod(shape))
    if len(data) < count * dtype.itemsize:
        raise truncated("PPM")
    return np.frombuffer(data, dtype, count).reshape(shape)
