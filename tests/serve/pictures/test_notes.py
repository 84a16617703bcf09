"""Notes beside the pixels never decide over them; of all notes only the orientation is read."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from .files import (
    chunk,
    colours,
    differences,
    exif,
    file_of,
    greys,
    jpeg_with,
    png_with,
    read,
    tiff,
    webp_with,
    with_type,
)

BIG_TEXT = zlib.compress(b"x" * 2_000_000)
LONG_NOTE = bytes(range(256)) * 8192
# A Make of 1/2, and a text where the resolution belongs, as in public reports of Pillow's users.
RATIONAL_MAKE = with_type(exif(t271=(1, 0, 2, 0)), 271, 5)
UPRIGHT_MAKE = with_type(exif(t271=(1, 0, 2, 0), t274=1), 271, 5)
TEXT_RESOLUTION = exif(t282=b"three hundred\0", t296=65535)
# JPEG, AVIF and HEIC round a little, most of all at the edges where 256 wraps to 0.
ROUNDING = 2


def avif_with(block: bytes) -> bytes:
    """An AVIF with an EXIF block, which Pillow would refuse to write."""
    marker = Image.Exif()
    marker[0x010E] = "x" * (len(block) - 26)  # makes a block of the same length
    written = marker.tobytes()[6:]
    plain = file_of(colours(), "AVIF", quality=100, subsampling="4:4:4", exif=marker)
    assert written in plain
    return plain.replace(written, block.ljust(len(written), b"\0")[: len(written)])


@pytest.mark.parametrize(
    "data",
    [
        png_with(chunk(b"zTXt", b"note\0\0" + BIG_TEXT)),
        png_with(chunk(b"iCCP", b"icc\0\0" + BIG_TEXT)),
        png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BIG_TEXT)),
        png_with(chunk(b"eXIf", b"II\x2a\0\xff\xff\xff\xff")),
        png_with(chunk(b"eXIf", b"nonsense")),
        png_with(chunk(b"tEXt", b"note\0text", wrong=1)),
        png_with(chunk(b"iCCP", b"icc\0\0" + BIG_TEXT, wrong=1)),
        png_with(chunk(b"gAMA", b"")),
        png_with(chunk(b"cHRM", b"short", wrong=9)),
        png_with(chunk(b"acTL", b"")),
        jpeg_with((0xE2, b"ICC_PROFILE\0" + b"\xff" * 60_000)),
        jpeg_with((0xE0, b"JFIF"), (0xEE, b"Adobe"), (0xFE, b"\xff\xda" * 1000)),
        jpeg_with((0xE1, b"Exif\0\0"), (0xED, b"Photoshop 3.0\0" + b"8BIM" * 9)),
        jpeg_with((0xE2, b"MPF\0MM\0\x2a\0\0\0\x08\0\x01nonsense")),
        webp_with((b"EXIF", b"II\x2a\0\xff\xff\xff\xff"), (b"XMP ", b"<" * 1_200_000)),
        webp_with((b"ICCP", b"nonsense")),
        tiff("<", greys().tobytes(), t282=b"three hundred\0", t296=65535),
        tiff("<", greys().tobytes(), t700=LONG_NOTE, t34675=LONG_NOTE, t34665=65279),
        tiff("<", greys().tobytes(), t279=99_999_999),
        avif_with(RATIONAL_MAKE),  # an AVIF is turned by its boxes alone
        file_of(colours(), "HEIF", chroma=444, exif=b"Exif\0\0" + UPRIGHT_MAKE),
    ],
    ids=[
        *("PNG long zTXt", "PNG long iCCP", "PNG long XMP", "PNG EXIF beyond its end"),
        *("PNG EXIF of text", "PNG checksum of tEXt", "PNG checksum of iCCP", "PNG empty gAMA"),
        *("PNG short cHRM", "PNG empty acTL", "JPEG odd ICC", "JPEG short APPn", "JPEG empty EXIF"),
        *("JPEG odd MPF", "WebP odd EXIF and long XMP", "WebP odd ICC", "TIFF text resolution"),
        *("TIFF long notes", "TIFF wrong strip size", "AVIF rational Make", "HEIC rational Make"),
    ],
)
def test_notes_never_make_a_picture_unreadable(data: bytes) -> None:
    """A picture with damaged, odd or oversized metadata has the pixels it has without them."""
    wanted = greys() if data[:2] == b"II" else colours()

    assert differences(read(data), wanted).mean() < ROUNDING


@pytest.mark.parametrize("block", [RATIONAL_MAKE, TEXT_RESOLUTION, exif(">")])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_read_beside_odd_tags(kind: str, block: bytes) -> None:
    """Orientation 6 counts though another tag of the block can't be rewritten."""
    data = {
        "JPEG": jpeg_with((0xE1, b"Exif\0\0" + block)),
        "PNG": png_with(chunk(b"eXIf", block)),
        "WEBP": webp_with((b"EXIF", block)),
    }[kind]

    wanted = colours().transpose(Image.Transpose.ROTATE_270)
    assert differences(read(data), wanted).mean() < ROUNDING


@pytest.mark.parametrize("value", [*range(10), 65535])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_orientation_is_applied_once(kind: str, value: int) -> None:
    """Each of the eight turns is made to the pixels, and any other value makes none."""
    note = Image.Exif()
    note[0x0112] = value if kind not in ("AVIF", "HEIF") or 1 <= value <= 8 else 1
    options: dict[str, dict[str, object]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
        "HEIF": {"chroma": 444},
    }
    block = note.tobytes() if kind == "HEIF" else note
    plain = colours()
    plain.getexif()[0x0112] = note[0x0112]

    picture = read(file_of(colours(), kind, exif=block, **options.get(kind, {})))

    assert differences(picture, ImageOps.exif_transpose(plain)).mean() < ROUNDING + 1


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "TIFF", "AVIF"])
def test_first_frame_is_read(format: str) -> None:
    """Of several frames or pages, the first is the picture."""
    frames = [Image.new("RGB", (48, 32), colour) for colour in ("red", "lime", "blue")]
    data = file_of(frames[0], format, save_all=True, append_images=frames[1:])

    assert np.abs(np.array(read(data).getpixel((9, 9))) - (255, 0, 0)).max() <= 3


def test_second_header_of_a_png_counts_for_nothing() -> None:
    """The size that is allowed is the size that is read, whatever a later header says."""
    second = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))

    assert differences(read(png_with(second)), colours()).max() == 0
