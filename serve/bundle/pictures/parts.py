"""Image files reduced to the parts that decide their pixels.

A damaged or oversized note beside the pixels (EXIF, XMP, ICC, text) mustn't make a picture
unreadable, and Pillow reads such notes before any pixel. So they are taken out before Pillow sees
the file. Of all notes only the orientation is read, by exif.py.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from serve.bundle.errors import InvalidImage
from serve.bundle.pictures.exif import orientation_of

# Most segments, chunks or blocks of one file: each costs a few microseconds, however empty it is.
# A PNG of 16 MiB whose writer made chunks of 1 KiB has 16,384.
MAX_PARTS = 65_536
# Most scans of a JPEG. Progressive files have about 10; libtiff's limit is 100 too.
MAX_SCANS = 100
# Most pixels that all scans of a JPEG go over. A scan of 98 bytes can go over every pixel again,
# at 0.9 s for each 1,000 megapixels. 50 megapixels in 12 scans are 600.
MAX_SCANNED_PIXELS = 1_000_000_000
# Most pixels, and bytes, of a run-length BMP: Pillow reads those in Python, 0.3 µs a byte.
MAX_RUN_LENGTH_PIXELS = 2_000_000

PNG_SIGNATURE_BYTES = 8
# The chunks that a picture needs (PNG specification, 3rd edition, section 5.6), and transparency.
PNG_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
# A marker of T.81, B.1.1.2: 0xff and another byte. 0xff00 is a stuffed 0xff of the pixels, 0xffff
# is filling, and 0xffd0 to 0xffd7 restart the decoder within a scan.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
SOI, EOI, SOS, APP0, APP1, APP14, APP15, COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
TEMPORARY = 0x01  # with SOI and EOI, the markers without a length


@dataclass(frozen=True)
class PictureFile:
    """A file without notes, and what had to be read of it before Pillow does."""

    data: bytes
    width: int  # as declared, before it is turned upright
    height: int
    orientation: int = 1  # 1 to 8, as in EXIF
    transparent: tuple[int, ...] | None = None  # PNG: the sample or colour that is transparent
    deepest: int = 255  # PNG: the value of white in ``transparent``
    corner: tuple[int, int] | None = None  # WebP: where on the canvas the first frame lies


def truncated(kind: str) -> InvalidImage:
    """The error of a file whose end is missing."""
    return InvalidImage(f"the {kind} is truncated: it ends before its last row of pixels")


def bare_png(data: bytes) -> PictureFile:
    """Keep the pixels of a PNG; of an animated PNG, its default image."""
    kept, notes = [data[:PNG_SIGNATURE_BYTES]], {b"IHDR": b"", b"eXIf": b""}
    depth = colours = 0
    transparent = None
    for kind, content, chunk in png_chunks(data):
        if kind == b"IHDR" and len(content) >= 13:
            notes[kind] = content
            depth, colours = content[8], content[9]
        elif kind == b"eXIf":
            notes[kind] = content
        if kind == b"tRNS" and colours in (0, 2):
            # Pillow compares the sample as stored with pixels that it has scaled to 8 bits.
            transparent = struct.unpack(">H" if colours == 0 else ">3H", content[: 2 + 2 * colours])
        elif kind in PNG_PIXEL_CHUNKS:
            kept.append(chunk)
    if not notes[b"IHDR"]:
        raise InvalidImage("the PNG has no header (IHDR)")
    width, height = struct.unpack_from(">II", notes[b"IHDR"])
    turned = orientation_of(notes[b"eXIf"])
    return PictureFile(b"".join(kept), width, height, turned, transparent, (1 << depth) - 1)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, content and whole of each chunk up to IEND; only those that pixels need are checked."""
    at = PNG_SIGNATURE_BYTES
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at) if at + 8 <= len(data) else (0, b"")
        end = at + 12 + length
        needed = kind in PNG_PIXEL_CHUNKS
        if kind == b"IEND" or (end > len(data) and not needed):
            yield b"IEND", b"", b"\0\0\0\0IEND\xaeB`\x82"
            return
        if end > len(data):
            raise truncated("PNG")
        content = data[at + 8 : end - 4]
        if needed and data[end - 4 : end] != zlib.crc32(content, zlib.crc32(kind)).to_bytes(4):
            raise InvalidImage(f"the PNG has a wrong checksum (CRC) in its chunk {kind.decode()}")
        if not needed and kind[0] & 0x20 == 0:  # section 5.4: an upper-case letter means critical
            raise InvalidImage("the PNG has a critical chunk that isn't in the PNG specification")
        yield kind, content, data[at:end]
        at = end
    raise InvalidImage(f"the PNG has over {MAX_PARTS:,} chunks")


def bare_jpeg(data: bytes) -> PictureFile:
    """Keep the frame, the scans, and the notes that say how its colours are coded."""
    kept, size, turned, scans = [data[:2]], (0, 0), 1, 0
    for marker, start, end, scan_end in jpeg_segments(data):
        content = data[start + 4 : end]
        if marker == APP1 and content.startswith(b"Exif\0") and not scans:
            turned = turned if turned != 1 else orientation_of(content)
        if marker in START_OF_FRAME and len(content) >= 5 and size == (0, 0):
            check_jpeg_depth(content[0])
            size = (int.from_bytes(content[3:5]), int.from_bytes(content[1:3]))
        if decides_pixels(marker, content):
            kept.append(data[start:end])
        if marker == SOS or scans:
            scans += marker == SOS
            kept.append(data[end:scan_end])
    if not scans:
        raise truncated("JPEG")
    check_scans(scans, *size)
    return PictureFile(b"".join(kept), *size, turned)


def decides_pixels(marker: int, content: bytes) -> bool:
    """Whether a JPEG segment matters for pixels: all but comments and most APPn do.

    APP0 of JFIF and APP14 of Adobe say whether colours are RGB, YCbCr, CMYK or YCCK. libjpeg
    ignores them where they are shorter than this, and Pillow stumbles.
    """
    if marker == APP0:
        return content.startswith(b"JFIF\0") and len(content) >= 14
    if marker == APP14:
        return content.startswith(b"Adobe") and len(content) >= 12
    return not (APP0 <= marker <= APP15 or marker == COM)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Marker, start and end of each segment up to EOI, and where the next begins.

    What follows EOI (a second picture, a film) is left out. Between the end of a segment and the
    next one lie the pixels of a scan.
    """
    found = JPEG_MARKER.search(data, 2)
    for _ in range(MAX_PARTS):
        if found is None:
            return
        start, marker = found.start(), data[found.start() + 1]
        alone = marker in (SOI, EOI, TEMPORARY)
        end = start + 2 if alone else start + 2 + int.from_bytes(data[start + 2 : start + 4])
        found = JPEG_MARKER.search(data, end)
        yield marker, start, end, found.start() if found else len(data)
        if marker == EOI:
            return
    raise InvalidImage(f"the JPEG has over {MAX_PARTS:,} segments")


def check_jpeg_depth(bits: int) -> None:
    """Raise InvalidImage unless the samples of a JPEG have 8 bits."""
    if bits != 8:
        raise InvalidImage(f"JPEG samples of {bits} bits are not read; send 8 bits a channel")


def check_scans(scans: int, width: int, height: int) -> None:
    """Raise InvalidImage if decoding every scan would take too long for the picture's size."""
    if scans > MAX_SCANS:
        raise InvalidImage(f"the JPEG has {scans:,} scans; the limit is {MAX_SCANS}")
    if scans * width * height > MAX_SCANNED_PIXELS:
        raise InvalidImage(
            f"the JPEG goes over {width} x {height} pixels in {scans} scans; the limit is "
            f"{MAX_SCANNED_PIXELS:,} in all scans together"
        )


def bare_webp(data: bytes) -> PictureFile:
    """Keep the pixels of a WebP; of an animated WebP, its first frame as a still picture.

    https://developers.google.com/speed/webp/docs/riff_container
    """
    chunks: dict[bytes, bytes] = {}
    for kind, content in riff_chunks(data, 12):
        chunks.setdefault(kind, content)
    turned = orientation_of(chunks.get(b"EXIF", b""))
    frame = chunks.get(b"ANMF")
    if frame is None:
        still, width, height = still_webp(chunks)
        return PictureFile(still, width, height, turned)
    still, width, height = still_webp(dict(riff_chunks(frame, 16)))
    canvas = chunks.get(b"VP8X", b"")
    across, down = (1 + int.from_bytes(canvas[at : at + 3], "little") for at in (4, 7))
    left, top = (2 * int.from_bytes(frame[at : at + 3], "little") for at in (0, 3))
    if left + width > across or top + height > down:
        raise InvalidImage("the WEBP's first frame lies outside its canvas")
    return PictureFile(still, across, down, turned, corner=(left, top))


def riff_chunks(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk from ``at`` on; contents are padded to an even length."""
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > len(data) and kind in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF"):
            raise truncated("WEBP")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    raise InvalidImage(f"the WEBP has over {MAX_PARTS:,} chunks")


def still_webp(chunks: dict[bytes, bytes]) -> tuple[bytes, int, int]:
    """A WebP of one frame's pixels alone, its width and its height."""
    kind = b"VP8L" if b"VP8L" in chunks else b"VP8 "
    pixels = chunks.get(kind, b"")
    if len(pixels) < 10:
        raise truncated("WEBP")
    if kind == b"VP8L":
        bits = int.from_bytes(pixels[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", pixels, 6))
    body = riff_chunk(kind, pixels)
    if kind == b"VP8 " and b"ALPH" in chunks and width and height:
        sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
        alpha = b"\x10\0\0\0"  # the flag of transparency
        body = riff_chunk(b"VP8X", alpha + sides) + riff_chunk(b"ALPH", chunks[b"ALPH"]) + body
    return riff_chunk(b"RIFF", b"WEBP" + body), width, height


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a RIFF file."""
    return struct.pack("<4sI", kind, len(content)) + content + b"\0" * (len(content) % 2)


def bare_gif(data: bytes) -> PictureFile:
    """Keep a GIF from its first frame on, without the comments before it (GIF89a, section 24)."""
    if len(data) < 13:
        raise truncated("GIF")
    at = 13 + gif_palette_bytes(data[10])
    kept = [data[:at]]
    for _ in range(MAX_PARTS):
        kind = data[at : at + 1]
        if kind == b",":
            break
        end = end_of_blocks(data, at + 2)
        if kind != b"!" or end > len(data):
            raise truncated("GIF")
        if data[at + 1 : at + 3] == b"\xf9\x04":  # which colour is transparent
            kept[1:] = [data[at:end]]
        at = end
    else:
        raise InvalidImage(f"the GIF has over {MAX_PARTS:,} blocks before its picture")
    if len(data) < at + 10:
        raise truncated("GIF")
    left, top, width, height = struct.unpack_from("<4H", data, at + 1)
    screen = struct.unpack_from("<HH", data, 6)  # Pillow widens it to the frame
    size = (max(screen[0], left + width), max(screen[1], top + height))
    return PictureFile(b"".join((*kept, data[at:])), *size if width and height else (0, 0))


def gif_palette_bytes(flags: int) -> int:
    """The size of the palette that a GIF's flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def end_of_blocks(data: bytes, at: int) -> int:
    """Where a row of a GIF's blocks ends, each after a byte of its length, the last of length 0."""
    for _ in range(MAX_PARTS):
        length = data[at] if at < len(data) else 0
        at += 1 + length
        if length == 0:
            return at
    raise InvalidImage(f"the GIF has over {MAX_PARTS:,} blocks before its picture")


def bare_bmp(data: bytes) -> PictureFile:
    """Read the size that a BMP declares; a BMP has no notes."""
    if len(data) < 26:
        raise truncated("BMP")
    if int.from_bytes(data[14:18], "little") == 12:  # BITMAPCOREHEADER
        return PictureFile(data, *struct.unpack_from("<HH", data, 18))
    width, height = struct.unpack_from("<ii", data, 18)
    compression = int.from_bytes(data[30:34], "little")
    if compression in (1, 2) and max(width * abs(height), len(data)) > MAX_RUN_LENGTH_PIXELS:
        raise InvalidImage(
            f"run-length BMPs of over {MAX_RUN_LENGTH_PIXELS:,} pixels or bytes are not read; "
            "save the picture as PNG"
        )
    return PictureFile(data, max(width, 0), abs(height))
