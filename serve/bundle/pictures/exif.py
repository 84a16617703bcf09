"""Which way up a picture is: the only note beside the pixels that is read."""

import struct
from collections.abc import Iterator

from PIL import Image

ORIENTATION = 0x0112
# How a picture is turned upright, by its orientation (CIPA DC-008, tag 0x0112).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Turn or mirror a picture by its EXIF orientation; values other than 2 to 8 do nothing."""
    turn = TURNS.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def orientation_of(exif: bytes) -> int:
    """The orientation in an EXIF block; 1 where the block is absent or odd in any way."""
    block = exif.removeprefix(b"Exif\0\0")
    if not block.startswith((b"II\x2a\0", b"MM\0\x2a")):
        return 1
    for tag, kind, count, value in directory(block):
        if tag == ORIENTATION and (kind, count) == (3, 1):
            return int(struct.unpack_from(order_of(block) + "H", value)[0])
    return 1


def order_of(tiff: bytes) -> str:
    """The order of the bytes of a number, as struct writes it."""
    return "<" if tiff.startswith(b"II") else ">"


def directory(tiff: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The first directory of a TIFF or BigTIFF, as far as it goes (TIFF 6.0, section 2).

    Yields:
        Tag, type, count of values, and the bytes of the values or of the place where they are.
    """
    order, big = order_of(tiff), 0x2B in tiff[2:4]
    place, count_of, entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")
    at = number(tiff, order + place, 8 if big else 4)
    start = at + struct.calcsize(order + count_of)
    size = struct.calcsize(order + entry)
    count = min(number(tiff, order + count_of, at), max(0, len(tiff) - start) // size)
    yield from struct.iter_unpack(order + entry, tiff[start : start + count * size])


def number(tiff: bytes, layout: str, at: int) -> int:
    """One number of the file; 0 beyond its end."""
    inside = at + struct.calcsize(layout) <= len(tiff)
    return int(struct.unpack_from(layout, tiff, at)[0]) if inside else 0
