"""Which way up a picture is: the only note beside the pixels that is read."""

import re
import struct

ORIENTATION = 0x0112

# An entry of a box "iinf": the box "infe" of version 2 or 3, the item's number, and its type
# (ISO 14496-12, section 8.11.6).
EXIF_ITEM = re.compile(rb"(infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2})Exif", re.DOTALL)


def without_exif_item(data: bytes) -> bytes:
    """An AVIF or HEIF whose EXIF item has an unknown type, so that nobody reads it.

    Its own boxes irot and imir say how the picture is turned (MIAF, ISO 23000-22, section 7.3.6.7);
    EXIF orientation is to be ignored beside them.
    """
    return EXIF_ITEM.sub(rb"\1none", data)


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block; 1 where the block is absent or odd in any way.

    Only the first directory is read. It begins with the number of its entries; each has a tag, a
    type, a count and a value (TIFF 6.0, section 2).
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II\x2a\0": "<", b"MM\0\x2a": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (at,) = struct.unpack_from(f"{order}I", exif, 4)
    if at + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, at)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if tag == ORIENTATION:
            return value if kind == 3 and values == 1 and 1 <= value <= 8 else 1
    return 1
