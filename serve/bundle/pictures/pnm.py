"""PBM, PGM and PPM files → pixels, whatever the value of white (https://netpbm.sourceforge.net/doc).

Pillow isn't used: it reads white other than 255 and 65535 in a loop in Python, and widens greys of
more than 8 bits to 32.
"""

import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.bundle.errors import InvalidImage
from serve.bundle.pictures.samples import to_bytes
from serve.bundle.pictures.sizes import Spend, declare, truncated

NUMBER = rb"(?:[ \t\n\v\f\r]|#[^\n\r]*+[\n\r])++(\d{1,9})"
HEADER = re.compile(rb"P([14])" + 2 * NUMBER + rb"|P([2356])" + 3 * NUMBER)
COMMENT = re.compile(rb"#[^\n\r]*")
NO_NUMBER = re.compile(rb"[^\d \t\n\v\f\r]")


def read_pnm(data: bytes, spend: Spend) -> Image.Image:
    """A PBM, PGM or PPM → a picture of mode "L" or "RGB"; of several in one file, the first.

    Raises:
        InvalidImage: damaged, truncated, or refused by ``spend``.
    """
    header = HEADER.match(data)
    if header is None:
        raise InvalidImage("the PPM is damaged: its header lacks a number")
    kind, width, height, *rest = (int(digits) for digits in header.groups() if digits)
    white = rest[0] if rest else 1  # a PBM doesn't say it
    if not 0 < white < 65536:
        raise InvalidImage("the PPM's maxval isn't between 1 and 65535")
    declare("PPM", (width, height), 8 * len(data), spend)
    shape = (height, width, 3) if kind in (3, 6) else (height, width)
    if kind < 4:
        samples = plain_samples(data[header.end() :], shape, one_digit=kind == 1)
    else:
        samples = raw_samples(data, header.end() + 1, shape, white, packed=kind == 4)
    pixels = to_bytes(samples, white)
    return Image.fromarray(255 - pixels if kind in (1, 4) else pixels)  # in a PBM, 1 is black


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
    elif len(text) >= 2 * count - 1 and text.strip():
        numbers = np.fromstring(text, np.int64, count, sep=" ")
    else:
        raise truncated("PPM")
    if numbers.size < count:
        raise truncated("PPM")
    return numbers.reshape(shape)


def raw_samples(
    data: bytes, at: int, shape: tuple[int, ...], white: int, packed: bool
) -> NDArray[np.generic]:
    """Samples of 1 bit, 8 bits, or 16 bits with the high byte first."""
    stored = (shape[0], -(-shape[1] // 8)) if packed else shape
    size, count = 2 if white > 255 else 1, int(np.prod(stored))
    if len(data) < at + count * size:
        raise truncated("PPM")
    if size == 2:
        return np.frombuffer(data, ">u2", count, at).reshape(stored)
    samples = np.frombuffer(data, np.uint8, count, at).reshape(stored)
    return np.unpackbits(samples, axis=1, count=shape[1]) if packed else samples
