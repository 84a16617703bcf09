"""Image files reduced to the parts that decide their pixels.

A damaged or oversized note beside the pixels (EXIF, XMP, ICC, text) mustn't make a picture
unreadable, and Pillow reads such notes before any pixel. So they are taken out before Pillow sees
the file. Of all notes only the EXIF block is kept, apart, for its orientation.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from serve.bundle.errors import InvalidImage
from serve.bundle.pictures.sizes import MAX_PARTS, check_scans, truncated

# The chunks that a picture needs (PNG specification, 3rd edition, section 5.6), and transparency.
PNG_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
# A marker of T.81, B.1.1.2: 0xff and another byte. 0xff00 is a stuffed 0xff of the pixels, 0xffff
# is filling, and 0xffd0 to 0xffd7 restart the decoder within a scan.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
SOI, EOI, SOS, APP0, APP1, APP14, APP15, COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
TEMPORARY = 0x01  # with SOI and EOI, the markers without a length

Bare = tuple[bytes, bytes]  # a file without notes, and its EXIF block


def bare_png(data: bytes) -> Bare:
    """Keep the pixels of a PNG; of an animated PNG, its default image."""
    if data[12:16] != b"IHDR":
        raise InvalidImage("the PNG has no header (IHDR)")
    kept, exif = [data[:8]], b""
    for kind, content, chunk in png_chunks(data):
        if kind == b"eXIf":
            exif = content
        elif kind == b"tRNS":
            kept.append(png_chunk(kind, scaled_key(content, *data[24:26])))
        elif kind in PNG_PIXEL_CHUNKS and (kind != b"IHDR" or len(kept) == 1):
            kept.append(chunk)
    if not any(chunk[4:8] == b"IDAT" for chunk in kept):
        raise truncated("PNG")
    return b"".join(kept), exif


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, content and whole of each chunk up to IEND; only those that pixels need are checked."""
    at = 8
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at) if at + 8 <= len(data) else (0, b"")
        end = at + 12 + length
        needed = kind in PNG_PIXEL_CHUNKS
        if kind == b"IEND" or (end > len(data) and not needed):
            yield b"IEND", b"", png_chunk(b"IEND", b"")
            return
        if end > len(data):
            raise truncated("PNG")
        content = data[at + 8 : end - 4]
        if needed and data[end - 4 : end] != png_checksum(kind, content):
            raise InvalidImage(f"the PNG has a wrong checksum (CRC) in its chunk {kind.decode()}")
        if not needed and kind[0] & 0x20 == 0:  # section 5.4: an upper-case letter means critical
            raise InvalidImage("the PNG has a critical chunk that isn't in the PNG specification")
        yield kind, content, data[at:end]
        at = end
    raise InvalidImage(f"the PNG has over {MAX_PARTS:,} chunks")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return len(content).to_bytes(4) + kind + content + png_checksum(kind, content)


def png_checksum(kind: bytes, content: bytes) -> bytes:
    """The last four bytes of a chunk."""
    return zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)


def scaled_key(key: bytes, depth: int, colours: int) -> bytes:
    """The transparent sample or colour of a PNG, in the depth to which Pillow scales the pixels.

    Pillow scales them to 8 bits, but leaves greys of 16 bits as they are.
    """
    if colours == 0 and depth < 8:
        white = (1 << depth) - 1
        return bytes([0, (key[1] & white) * 255 // white])
    if colours == 2 and depth == 16:
        return bytes([0, key[0], 0, key[2], 0, key[4]])
    return key


def bare_jpeg(data: bytes) -> Bare:
    """Keep the frame, the scans, and the notes that say how its colours are coded."""
    kept, exif, scans, pixels = [data[:2]], b"", 0, 0
    for marker, start, end, scan_end in jpeg_segments(data):
        content = data[start + 4 : end]
        if marker == APP1 and content.startswith(b"Exif\0"):
            exif = exif or content
        if marker in START_OF_FRAME and len(content) > 5:
            bits, height, width = struct.unpack_from(">BHH", content)
            pixels = max(pixels, width * height)
            if bits != 8:
                raise InvalidImage(f"JPEG samples of {bits} bits are not read; send 8 bits")
        if decides_pixels(marker, content):
            kept.append(data[start:end])
        scans += marker == SOS
        if scans:
            kept.append(data[end:scan_end])
    if not scans:
        raise truncated("JPEG")
    check_scans("JPEG", scans, 1, pixels)
    return b"".join(kept), exif


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


def bare_gif(data: bytes) -> Bare:
    """Keep a GIF from its first frame on, and of what is before it, which colour is transparent.

    The screen is widened to the frame, and the frame isn't disposed of (GIF89a, sections 18 to 24).
    Pillow would do both on its own, and warn of sizes that haven't been allowed yet.
    """
    if len(data) < 13:
        raise truncated("GIF")
    at, key = 13 + gif_palette_bytes(data[10]), b""
    palette = data[10:at]
    for _ in range(MAX_PARTS):
        if data[at : at + 1] != b"!":
            break
        end = end_of_blocks(data, at + 2)
        if data[at : at + 3] == b"!\xf9\x04":
            key = b"!\xf9\x04" + bytes([data[at + 3] & 1]) + data[at + 4 : end]
        at = end
    if data[at : at + 1] != b"," or len(data) < at + 10:
        raise truncated("GIF")
    left, top, width, height = struct.unpack_from("<4H", data, at + 1)
    if 0 in (width, height):
        raise InvalidImage(f"the GIF has no pixels: its first frame has {width} x {height}")
    across, down = struct.unpack_from("<HH", data, 6)
    screen = struct.pack("<HH", max(across, left + width), max(down, top + height))
    return b"".join((data[:6], screen, palette, key, data[at:])), b""


def gif_palette_bytes(flags: int) -> int:
    """The size of the palette that a GIF's flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def end_of_blocks(data: bytes, at: int) -> int:
    """Where a row of a GIF's blocks ends, each after a byte of its length, the last of length 0."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def whole_webp(data: bytes) -> Bare:
    """A WebP as it is: libwebp leaves notes alone, and animates no further than it is asked to."""
    if 8 + int.from_bytes(data[4:8], "little") > len(data):
        raise truncated("WEBP")
    return data, b""
