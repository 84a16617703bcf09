"""The first page of a TIFF, with the tags that decide its pixels and no others.

Pillow and libtiff get a file with a directory of those tags alone (TIFF 6.0, sections 8 to 20).
"""

import struct

from serve.bundle.errors import InvalidImage
from serve.bundle.pictures.exif import ORIENTATION, directory, order_of
from serve.bundle.pictures.sizes import (
    DENSEST_JPEG,
    MAX_PARTS,
    Spend,
    check_scans,
    declare,
    truncated,
)

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
T4_OPTIONS, T6_OPTIONS, PREDICTOR, PALETTE = 292, 293, 317, 320
TILE_WIDTH, TILE_ROWS, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
EXTRA, FORMAT, JPEG_TABLES, SUBSAMPLING = 338, 339, 347, 530
# The tags that are read; any other is a note.
SINGLE = {WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES, STRIP_ROWS}
SINGLE |= {PLANAR, T4_OPTIONS, T6_OPTIONS, PREDICTOR, TILE_WIDTH, TILE_ROWS}
PLACES = {STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES}
LISTS = PLACES | {BITS, PALETTE, EXTRA, FORMAT, JPEG_TABLES, SUBSAMPLING}
LONGEST = 3 * 65536  # values of one tag: a palette of 16 bits; strips and tiles are fewer

TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}  # BYTE, SHORT, LONG, UNDEFINED, LONG8 of BigTIFF
# Compression → the most bytes that a byte unpacks to: LZW's longest string has 4,096 bytes in a
# code of 12 bits, Deflate repeats 258 bytes in 2 bits, PackBits 128 in 2 bytes, Zstd 128 KiB in 4.
PACKINGS = {1: 1, 5: 2_731, 8: 1_032, 32773: 64, 32946: 1_032, 50000: 32_768}
FAX, JPEG = (2, 3, 4), 7
RGB, PALETTED, CMYK, YCBCR, LAB = 2, 3, 5, 6, (8, 9, 10)
UNSIGNED, SIGNED, UNDEFINED = 1, 2, 4

Tags = dict[int, tuple[int, ...]]


class Tiff:
    """The first page of a TIFF: the tags that decide its pixels."""

    def __init__(self, data: bytes, tags: Tags) -> None:
        self.data, self.tags = data, tags
        self.order = order_of(data)
        self.size = width, height = self.one(WIDTH), self.one(HEIGHT)  # before it is upright
        self.bits = max(tags.get(BITS, (1,)))  # of the deepest sample
        self.signed = SIGNED in tags.get(FORMAT, ())
        self.packing, self.photometric = self.one(COMPRESSION, 1), self.one(PHOTOMETRIC)
        self.samples = self.one(SAMPLES, 1)  # of a pixel
        self.planes = self.samples if self.one(PLANAR) == 2 else 1
        self.tiled = STRIP_OFFSETS not in tags
        strip = width, min(self.one(STRIP_ROWS, height), height)
        self.part = (self.one(TILE_WIDTH), self.one(TILE_ROWS)) if self.tiled else strip
        if 0 in self.part or not 1 <= self.samples <= 6 or self.bits == 0:
            raise InvalidImage("the TIFF is damaged, or has over 6 samples a pixel")
        self.parts = -(-width // self.part[0]) * -(-height // self.part[1])  # of one plane

    def one(self, tag: int, default: int = 0) -> int:
        """The first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    def places(self) -> list[tuple[int, int]]:
        """Where the strips or tiles of all planes are, and their sizes."""
        tags = (TILE_OFFSETS, TILE_BYTES) if self.tiled else (STRIP_OFFSETS, STRIP_BYTES)
        count = self.parts * self.planes
        offsets, sizes = (self.tags.get(tag, ())[:count] for tag in tags)
        if len(offsets) < count:
            raise truncated("TIFF")
        if self.packing == 1 or len(sizes) < count:
            sizes = (0,) * count  # needn't be right where nothing is packed
        return list(zip(offsets, sizes, strict=True))


def read_tiff(data: bytes, spend: Spend) -> Tiff:
    """Read the tags of a TIFF's or BigTIFF's first page.

    Raises:
        InvalidImage: the pixels are of a kind that isn't read, aren't there, or are too many.
    """
    tags: Tags = {}
    for tag, kind, count, value in directory(data):
        # Of a tag that comes again the values aren't even read: it may come 65,535 times.
        if kind in TYPES and tag in SINGLE | LISTS and tag not in tags:
            tags[tag] = values_of(data, tag, TYPES[kind], count, value)
    if not {WIDTH, HEIGHT} <= tags.keys():
        raise truncated("TIFF")
    tiff = Tiff(data, {tag: values for tag, values in tags.items() if values})
    check_kind(tiff)
    check_parts(tiff, spend)
    return tiff


def values_of(data: bytes, tag: int, kind: str, count: int, value: bytes) -> tuple[int, ...]:
    """The values of one tag: in its entry, or where the entry points to."""
    order = order_of(data)
    count = min(count, 1 if tag in SINGLE else LONGEST)
    size = struct.calcsize(order + kind) * count
    if size > len(value):
        (at,) = struct.unpack(order + ("I" if len(value) == 4 else "Q"), value)
        value = data[at : at + size]
    if len(value) < size:
        raise truncated("TIFF")
    return struct.unpack_from(f"{order}{count}{kind}", value)


def check_kind(tiff: Tiff) -> None:
    """Raise InvalidImage where a TIFF's pixels are of a kind that isn't read."""
    if tiff.photometric in LAB:
        raise InvalidImage("Lab colours are not read; save the picture in RGB")
    if tiff.bits > 16:
        raise InvalidImage(f"TIFFs of {tiff.bits} bits are not read; send 8 or 16 bits a channel")
    if not set(tiff.tags.get(FORMAT, (1,))) <= {UNSIGNED, SIGNED, UNDEFINED}:
        raise InvalidImage("samples that aren't whole numbers are not read; send 8 or 16 bits")
    if tiff.packing not in (*PACKINGS, *FAX, JPEG):
        raise InvalidImage(
            f"TIFFs of compression {tiff.packing} are not read; save the picture without "
            "compression, or with LZW, Deflate, PackBits, Zstd, JPEG or fax"
        )
    if tiff.photometric == YCBCR and tiff.packing != JPEG and tiff.tags.get(SUBSAMPLING) != (1, 1):
        raise InvalidImage("TIFFs of YCbCr are only read in JPEG; save the picture in RGB")


def check_parts(tiff: Tiff, spend: Spend) -> None:
    """Raise InvalidImage if strips or tiles are missing, or are more work than the pixels."""
    if tiff.parts * tiff.planes > MAX_PARTS:
        raise InvalidImage(f"the TIFF has over {MAX_PARTS:,} strips or tiles")
    places, (width, height) = tiff.places(), tiff.part
    packed = sum(size for _, size in places) or len(tiff.data)
    declare("TIFF", tiff.size, most_pixels(tiff, packed), spend)
    if tiff.parts * width * height > min(4 * tiff.size[0] * tiff.size[1], 1 << 26) + (1 << 20):
        raise InvalidImage("the TIFF's tiles are far larger than its picture")
    if any(at + size > len(tiff.data) for at, size in places):
        raise truncated("TIFF")
    if packed > 4 * len(tiff.data):
        raise InvalidImage("the TIFF's strips or tiles overlap")
    if tiff.packing == JPEG:
        scans = sum(tiff.data.count(b"\xff\xda", at, at + size) for at, size in places)
        check_scans("TIFF", scans, len(places), width * height)


def most_pixels(tiff: Tiff, packed: int) -> int:
    """The most pixels that so many packed bytes can hold. A row of a fax has at least one bit."""
    if tiff.packing in FAX:
        return 8 * packed * tiff.size[0]
    if tiff.packing == JPEG:
        return DENSEST_JPEG * packed
    return 8 * PACKINGS[tiff.packing] * packed // (tiff.bits * tiff.samples)


def is_pillows(tiff: Tiff) -> bool:
    """Whether Pillow reads the samples rightly by itself."""
    if tiff.packing not in PACKINGS or tiff.photometric in (PALETTED, YCBCR):
        return True
    colours16 = tiff.photometric in (RGB, CMYK) or (tiff.photometric, tiff.samples) == (1, 1)
    depths = set(tiff.tags.get(BITS, (1,)))
    return not tiff.signed and (
        depths in ({1}, {2}, {4}, {8}) or (depths == {16} and tiff.planes == 1 and colours16)
    )


def bare_tiff(tiff: Tiff) -> bytes:
    """The file with a directory of the tags that decide pixels, and no other page."""
    tags = {tag: values for tag, values in tiff.tags.items() if tag != ORIENTATION}
    for tag in PLACES & tags.keys():
        tags[tag] = tags[tag][: tiff.parts * tiff.planes]
    if STRIP_ROWS in tags:
        tags[STRIP_ROWS] = (tiff.part[1],)
    if max(tags.get(PALETTE, (0,))) in range(1, 256):
        # Some writers leave the colours of a palette at 8 bits; libtiff widens them likewise.
        tags[PALETTE] = tuple(257 * value for value in tags[PALETTE])
    return with_directory(tiff, tags)


def with_directory(tiff: Tiff, tags: Tags) -> bytes:
    """A classic TIFF: the file's bytes where they were, then a directory, then its long values."""
    data, order = tiff.data, tiff.order
    at = len(data) + len(data) % 2
    after = at + 2 + 12 * len(tags) + 4
    entries, values = [struct.pack(f"{order}H", len(tags))], b""
    for tag, numbers in sorted(tags.items()):
        kind, letter = (7, "B") if tag == JPEG_TABLES else (4, "I")
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(packed) > 4:
            place = after + len(values)
            values, packed = values + packed, struct.pack(f"{order}I", place)
        entries.append(struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0"))
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, at)
    return b"".join((head, data[8:], b"\0" * (len(data) % 2), *entries, b"\0\0\0\0", values))
