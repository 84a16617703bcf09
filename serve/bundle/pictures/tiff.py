"""TIFF files → pixels, by the depth that they declare (TIFF 6.0, sections 8 to 20).

Of the first page's tags only those that decide pixels are read. Pillow and libtiff get a file with
a directory of those alone. Samples that Pillow has no mode for, such as greys of 12 bits, are
presented to it as a grey picture of plain bytes, and put together here.
"""

import struct
from dataclasses import dataclass

from serve.bundle.errors import InvalidImage
from serve.bundle.pictures.exif import ORIENTATION
from serve.bundle.pictures.parts import (
    MAX_PARTS,
    MAX_SCANNED_PIXELS,
    MAX_SCANS,
    truncated,
)
from serve.bundle.pictures.samples import deep_samples

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
T4_OPTIONS, T6_OPTIONS, PREDICTOR, PALETTE = 292, 293, 317, 320
TILE_WIDTH, TILE_ROWS, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
EXTRA, FORMAT, JPEG_TABLES, SUBSAMPLING = 338, 339, 347, 530
# The tags that are read; any other is a note.
SINGLE = {WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES, STRIP_ROWS}
SINGLE |= {PLANAR, T4_OPTIONS, T6_OPTIONS, PREDICTOR, TILE_WIDTH, TILE_ROWS}
LISTS = {BITS, STRIP_OFFSETS, STRIP_BYTES, PALETTE, TILE_OFFSETS, TILE_BYTES, EXTRA, FORMAT}
LISTS |= {JPEG_TABLES, SUBSAMPLING}
LONGEST = 3 * 65536  # values of one tag: a palette of 16 bits; strips and tiles are fewer

TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}  # BYTE, SHORT, LONG, UNDEFINED, LONG8 of BigTIFF
PACKINGS = {1: "none", 5: "LZW", 8: "Deflate", 32773: "PackBits", 32946: "Deflate", 50000: "Zstd"}
FAX, JPEG = (2, 3, 4), 7
GREYS, RGB, PALETTED, CMYK, YCBCR, LAB = (0, 1), 2, 3, 5, 6, (8, 9, 10)
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4

Tags = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Tiff:
    """The first page of a TIFF: the tags that decide its pixels."""

    data: bytes
    order: str  # "<" or ">", as for struct
    tags: Tags

    def one(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    @property
    def width(self) -> int:
        """In pixels, before the page is turned upright."""
        return self.one(WIDTH, 0)

    @property
    def height(self) -> int:
        """In pixels, before the page is turned upright."""
        return self.one(HEIGHT, 0)

    @property
    def orientation(self) -> int:
        """1 to 8, as in EXIF; 1 for any other value."""
        value = self.one(ORIENTATION, 1)
        return value if 1 <= value <= 8 else 1

    @property
    def bits(self) -> int:
        """The depth of the deepest sample."""
        return max(self.tags.get(BITS, (1,)))

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return self.one(SAMPLES, 1)

    @property
    def tiled(self) -> bool:
        """Whether pixels come in tiles, not in strips."""
        return STRIP_OFFSETS not in self.tags

    @property
    def part(self) -> tuple[int, int]:
        """Width and height of a strip or tile."""
        if self.tiled:
            return self.one(TILE_WIDTH, 0), self.one(TILE_ROWS, 0)
        return self.width, min(self.one(STRIP_ROWS, self.height), self.height)

    @property
    def parts(self) -> int:
        """The strips or tiles that one plane needs."""
        width, height = self.part
        return -(-self.width // width) * -(-self.height // height)


def read_tiff(data: bytes) -> Tiff:
    """Read the tags of a TIFF's or BigTIFF's first page.

    Raises:
        InvalidImage: the directory is missing or damaged.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = data[2 if order == "<" else 3] == 0x2B
    head, count_of, entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")
    at = number(data, order + head, 8 if big else 4)
    count = number(data, order + count_of, at)
    start = at + struct.calcsize(order + count_of)
    size = struct.calcsize(order + entry)
    if count > MAX_PARTS or start + count * size > len(data):
        raise truncated("TIFF")
    tags: Tags = {}
    for tag, kind, length, value in struct.iter_unpack(
        order + entry, data[start : start + count * size]
    ):
        if tag in SINGLE or tag in LISTS:
            tags.setdefault(tag, values_of(data, order, tag, TYPES.get(kind), length, value))
    tags = {tag: values for tag, values in tags.items() if values}
    return Tiff(data, order, tags)


def number(data: bytes, layout: str, at: int) -> int:
    """One number of the file."""
    if at + struct.calcsize(layout) > len(data):
        raise truncated("TIFF")
    return int(struct.unpack_from(layout, data, at)[0])


def values_of(
    data: bytes, order: str, tag: int, kind: str | None, length: int, value: bytes
) -> tuple[int, ...]:
    """The values of one tag: in its entry, or where the entry points to. None of a strange type."""
    if kind is None:
        return ()
    length = min(length, 1 if tag in SINGLE else LONGEST)
    size = struct.calcsize(order + kind) * length
    if size > len(value):
        at = int.from_bytes(value, "little" if order == "<" else "big")
        value = data[at : at + size]
    if len(value) < size:
        raise truncated("TIFF")
    return struct.unpack_from(f"{order}{length}{kind}", value)


def check_tiff(tiff: Tiff) -> None:
    """Raise InvalidImage where a TIFF's pixels are of a kind that isn't read, or aren't there."""
    photometric, packing = tiff.one(PHOTOMETRIC, 0), tiff.one(COMPRESSION, 1)
    if photometric in LAB:
        raise InvalidImage("Lab colours are not read; save the picture in RGB")
    if tiff.bits > 16:
        raise deep_samples(tiff.bits)
    if not set(tiff.tags.get(FORMAT, (1,))) <= {UNSIGNED, SIGNED, UNDEFINED}:
        raise InvalidImage("samples that aren't whole numbers are not read; send 8 or 16 bits")
    if packing not in PACKINGS and packing not in FAX and packing != JPEG:
        raise InvalidImage(
            f"TIFFs of compression {packing} are not read; save the picture without compression, "
            "or with LZW, Deflate, PackBits, Zstd, JPEG or fax"
        )
    if photometric == YCBCR and packing != JPEG and tiff.tags.get(SUBSAMPLING) != (1, 1):
        raise InvalidImage("TIFFs of YCbCr are only read in JPEG; save the picture in RGB")
    check_parts(tiff)


def check_parts(tiff: Tiff) -> None:
    """Raise InvalidImage if strips or tiles are missing, or more than the pixels need."""
    width, height = tiff.part
    offsets = tiff.tags.get(TILE_OFFSETS if tiff.tiled else STRIP_OFFSETS, ())
    if 0 in (width, height) or not 1 <= tiff.samples <= 8:
        raise InvalidImage("the TIFF is damaged: it declares no strips, tiles or samples")
    planes = tiff.samples if tiff.one(PLANAR, 1) == 2 else 1
    if tiff.parts * planes > MAX_PARTS:
        raise InvalidImage(f"the TIFF has over {MAX_PARTS:,} strips or tiles")
    pixels = tiff.width * tiff.height
    if tiff.parts * width * height > 4 * pixels + (1 << 24):
        raise InvalidImage("the TIFF's tiles are far larger than its picture")
    if len(offsets) < tiff.parts * planes:
        raise truncated("TIFF")
    packed = tiff.one(COMPRESSION, 1) != 1  # Pillow needs no sizes of what isn't packed
    sizes = tiff.tags.get(TILE_BYTES if tiff.tiled else STRIP_BYTES, ()) if packed else ()
    if any(at + size > len(tiff.data) for at, size in zip(offsets, sizes, strict=False)):
        raise truncated("TIFF")
    if tiff.one(COMPRESSION, 1) == JPEG:
        check_jpeg_scans(tiff, width * height)


def check_jpeg_scans(tiff: Tiff, part_pixels: int) -> None:
    """Raise InvalidImage if JPEG strips repeat their scans, as parts.check_scans does."""
    scans = tiff.data.count(b"\xff\xda")
    if scans > MAX_SCANS * tiff.parts * 4 or scans * part_pixels > MAX_SCANNED_PIXELS:
        raise InvalidImage(f"the TIFF has {scans:,} JPEG scans, far more than its pixels need")


def is_pillows(tiff: Tiff) -> bool:
    """Whether Pillow reads the samples rightly by itself."""
    signed = SIGNED in tiff.tags.get(FORMAT, (1,))
    packing, photometric = tiff.one(COMPRESSION, 1), tiff.one(PHOTOMETRIC, 0)
    if packing not in PACKINGS or photometric in (PALETTED, YCBCR):
        return True
    whole = not signed and set(tiff.tags.get(BITS, (1,))) in ({1}, {2}, {4}, {8})
    colours16 = not signed and tiff.bits == 16 and photometric in (RGB, CMYK)
    return whole or (colours16 and tiff.one(PLANAR, 1) == 1)


def bare_tiff(tiff: Tiff) -> bytes:
    """The file with a directory of the tags that decide pixels, and no other page."""
    tags = {tag: values for tag, values in tiff.tags.items() if tag != ORIENTATION}
    planes = tiff.samples if tiff.one(PLANAR, 1) == 2 else 1
    for tag in (STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES):
        if tag in tags:
            tags[tag] = tags[tag][: tiff.parts * planes]
    if STRIP_ROWS in tags:
        tags[STRIP_ROWS] = (tiff.part[1],)
    if max(tags.get(PALETTE, (0,))) in range(1, 256):
        # Some writers leave the colours of a palette at 8 bits; libtiff widens them likewise.
        tags[PALETTE] = tuple(257 * value for value in tags[PALETTE])
    return with_directory(tiff.data, tiff.order, tags)


def with_directory(data: bytes, order: str, tags: Tags) -> bytes:
    """A classic TIFF: the file's bytes where they were, then a directory, then its long values."""
    at = len(data) + len(data) % 2
    after = at + 2 + 12 * len(tags) + 4
    entries, values = [struct.pack(f"{order}H", len(tags))], b""
    for tag, numbers in sorted(tags.items()):
        kind, letter = (7, "B") if tag == JPEG_TABLES else (3, "H")
        if tag in (WIDTH, HEIGHT) or max(numbers) > 65535 or tag in (STRIP_OFFSETS, TILE_OFFSETS):
            kind, letter = 4, "I"
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(packed) > 4:
            values += packed + b"\0" * (len(packed) % 2)
            packed = struct.pack(f"{order}I", after + len(values) - len(packed) - len(packed) % 2)
        entries.append(struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0"))
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, at)
    return b"".join((head, data[8:], b"\0" * (len(data) % 2), *entries, b"\0\0\0\0", values))
