"""AVIF and HEIF, files of ISO boxes; and how many pixels an AVIF has decoded.

libavif decodes frames of up to 268 megapixels, whatever size the file declares, and scales them
afterwards. Pillow can't give it a lower limit, so the sizes are read in the AV1 streams here.
libheif refuses a stream whose size isn't the declared one.
"""

import io
import re
import struct
from collections.abc import Iterator
from itertools import chain, islice

from PIL import features

from serve.bundle.errors import InvalidImage
from serve.bundle.pictures.sizes import MAX_PARTS, truncated

# An entry of a box "iinf": the box "infe" of version 2 or 3, the item's number, and its type
# (ISO 14496-12, section 8.11.6).
EXIF_ITEM = re.compile(rb"(infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2})Exif", re.DOTALL)
LARGEST_ILOC = 1 << 20  # bytes of the box "iloc", which has 16 for each item
SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6  # types of OBUs (AV1 specification, section 6.2.2)


def bare_avif(data: bytes) -> tuple[bytes, bytes]:
    """An AVIF without EXIF, and as a still picture: of a film, libavif reads its first item."""
    if not features.check("avif"):
        raise InvalidImage("AVIF is not read here; the operator can add it: Pillow with libavif")
    bare = without_exif_item("AVIF", data[:8] + b"avif" + data[12:])
    for _ in items(bare):  # libavif holds the list of items before their sizes can be compared
        pass
    return bare, b""


def without_exif_item(kind: str, data: bytes) -> bytes:
    """An AVIF or HEIF whose EXIF item has an unknown type, so that nobody reads it.

    Its own boxes irot and imir say how the picture is turned (MIAF, ISO 23000-22, section 7.3.6.7);
    EXIF orientation is to be ignored beside them.
    """
    if any(end > len(data) for _, _, end in boxes(data, 0, len(data))):
        raise truncated(kind)
    return EXIF_ITEM.sub(rb"\1none", data)


def boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each box, and where its content starts and ends (ISO 14496-12, section 4.2)."""
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            start, size = at + 16, int.from_bytes(data[at + 8 : at + 16])
        at = at + max(size, 8) if size else end
        yield kind, start, at


def coded_pixels(data: bytes) -> int:
    """The pixels of all frames of all items of an AVIF; some frames' size is rounded up."""
    total = 0
    for number, pixels in enumerate(chain.from_iterable(map(frames, items(data))), 1):
        if number > MAX_PARTS:
            raise InvalidImage(f"the AVIF has over {MAX_PARTS:,} OBUs")
        total += pixels
    return total


def items(data: bytes) -> Iterator[bytes]:
    """The content of each item that the first box "meta" lists (ISO 14496-12, section 8.11.3).

    libavif reads no box behind that one, except for the content of the items.
    """
    meta = next((box for box in boxes(data, 0, len(data)) if box[0] == b"meta"), None)
    if meta is None:
        raise InvalidImage("the AVIF is damaged: it has no list of items (meta)")
    inner = {kind: (start, end) for kind, start, end in boxes(data, meta[1] + 4, meta[2])}
    start, end = inner[b"iloc"]
    iloc = io.BytesIO(data[start : min(end, start + LARGEST_ILOC)])

    def take(size: int) -> int:
        number = iloc.read(size)
        if len(number) < size:
            raise InvalidImage("the AVIF is damaged: its list of items (iloc) has no end")
        return int.from_bytes(number)

    version, sizes, left = take(4) >> 24, take(2), 4 * len(data)
    place, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide, extents = 4 if version == 2 else 2, 0
    for _ in range(take(wide)):
        take(wide)  # the item's number
        in_idat = version > 0 and take(2) & 15 == 1
        take(2)  # of another file
        start, parts = take(base) + (inner[b"idat"][0] if in_idat else 0), []
        for _ in range(take(2)):
            extents += 1
            if extents > MAX_PARTS:
                raise InvalidImage(f"the AVIF's items have over {MAX_PARTS:,} parts")
            take(index if version else 0)
            at, size = start + take(place), take(length)
            parts.append(data[at : at + size] if size else data[at:])
            left -= len(parts[-1])
            if left < 0:
                raise InvalidImage("the AVIF's items overlap")
        yield b"".join(parts)


def frames(item: bytes) -> Iterator[int]:
    """The pixels of the frame of each OBU, 0 where it has none (AV1 specification, section 5.3)."""
    at, pixels = 0, 0
    while at < len(item):
        head = item[at]
        at += 1 + (head >> 2 & 1)  # with an extension or without
        size = 0 if head & 2 else len(item) - at
        for place, byte in enumerate(item[at : at + 8] if head & 2 else b""):  # leb128
            size |= (byte & 127) << 7 * place
            at += 1
            if byte < 128:
                break
        if head >> 3 & 15 == SEQUENCE_HEADER:
            pixels = largest_frame(item[at : at + min(size, 128)])
        yield pixels if head >> 3 & 15 in (FRAME_HEADER, FRAME) else 0
        at += size


def largest_frame(header: bytes) -> int:
    """The most pixels of a frame, by an AV1 sequence header (AV1 specification, section 5.5)."""
    bits = iter("".join(f"{byte:08b}" for byte in header))

    def take(count: int) -> int:
        return int("".join(islice(bits, count)) or "0", 2)

    take(4)  # profile, still picture
    if take(1):  # a reduced header: every frame has the size that it says
        take(5)
        across, down = 1 + take(4), 1 + take(4)
        return (1 + take(across)) * (1 + take(down))
    if take(1):
        raise InvalidImage("AVIFs with the timing of a film are not read")
    delays = take(1)
    for _ in range(1 + take(5)):
        take(12)
        if take(5) > 7:
            take(1)
        if delays and take(1):
            take(4)
    return 1 << 2 + take(4) + take(4)  # a frame may have any size of so many bits
