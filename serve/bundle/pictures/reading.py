"""Image files → upright 8-bit pictures: the pixels decide, whatever stands beside them.

Work is bounded before it is done: the size is allowed by ``spend`` before anything is unpacked, and
parts that cost time without adding pixels (scans, chunks, frames, strips) are counted.
"""

import ctypes
import functools
import io
import struct
from collections.abc import Callable
from contextlib import suppress

from PIL import Image, ImageFile, _imaging
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from serve.bundle.distribution import EXTRAS, install_command
from serve.bundle.errors import InvalidImage
from serve.bundle.limits import MAX_IMAGE_PIXELS
from serve.bundle.pictures.avif import bare_avif, coded_pixels, without_exif_item
from serve.bundle.pictures.deep import read_deep
from serve.bundle.pictures.exif import ORIENTATION, orientation_of, upright
from serve.bundle.pictures.kinds import kind_of
from serve.bundle.pictures.parts import Bare, bare_gif, bare_jpeg, bare_png, whole_webp
from serve.bundle.pictures.pnm import read_pnm
from serve.bundle.pictures.samples import flat
from serve.bundle.pictures.sizes import (
    DENSEST,
    DENSEST_GIF,
    DENSEST_JPEG,
    Spend,
    declare,
    truncated,
)
from serve.bundle.pictures.tiff import bare_tiff, is_pillows, read_tiff

# What readers are known to raise on damaged files; tests/serve/pictures looks for more.
UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,  # Pillow's error for a malformed file
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    BufferError,
    MemoryError,
    RuntimeError,  # NotImplementedError and RecursionError too
    struct.error,
    Warning,  # where the operator has made warnings errors
)
# Pillow's readers, and how a file is prepared for them. They are called without Image.open, which
# has a pixel limit of its own.
READERS: dict[str, tuple[type[ImageFile.ImageFile], Callable[[bytes], Bare]]] = {
    "PNG": (PngImageFile, bare_png),
    "JPEG": (JpegImageFile, bare_jpeg),
    "WEBP": (WebPImageFile, whole_webp),
    "GIF": (GifImageFile, bare_gif),
    "BMP": (BmpImageFile, lambda data: (data, b"")),
    "AVIF": (AvifImageFile, bare_avif),
}
# Most pixels, and bytes, of a run-length BMP: Pillow reads those in Python, 0.3 µs a byte.
MAX_RUN_LENGTH_PIXELS = 2_000_000


def open_picture(data: bytes, spend: Spend, at_least: int) -> Image.Image:
    """Read the first page or frame of one image file.

    EXIF orientation is applied to the pixels. Transparency is laid over black where the ink is
    light, and over white where it is dark. All other notes beside the pixels are ignored.

    Args:
        data: the file; its first bytes tell its kind, one of FORMATS.
        spend: called once, with the declared width and height, before anything is unpacked.
        at_least: the caller needs no more than this many pixels on the longer side. A JPEG may
            come back reduced by 2, 4 or 8, but not below this.

    Returns:
        A picture of mode "L" or "RGB", upright, 8 bits a channel.

    Raises:
        InvalidImage: unreadable; the message names the fault. Becomes HTTP 400.
        PayloadTooLarge: raised by ``spend``. Becomes HTTP 413.
    """
    kind = kind_of(data)
    try:
        if kind == "PPM":
            return read_pnm(data, spend)
        if kind == "TIFF":
            return open_tiff(data, spend)
        if kind == "HEIF":
            return open_heif(data, spend)
        return open_by_pillow(kind, data, spend, at_least)
    except Image.DecompressionBombError as error:  # Pillow's limit is above ours
        raise InvalidImage(
            f"the {kind} has more pixels than the limit of {MAX_IMAGE_PIXELS:,}"
        ) from error
    except UNREADABLE as error:
        if "truncated" in str(error):
            raise truncated(kind) from error
        raise InvalidImage(f"the {kind} is damaged: its pixels can't be decoded") from error


def open_by_pillow(kind: str, data: bytes, spend: Spend, at_least: int) -> Image.Image:
    """Read a file without its notes through Pillow."""
    reader, prepare = READERS[kind]
    bare, exif = prepare(data)
    with reader(io.BytesIO(bare)) as picture:
        densest = {"JPEG": DENSEST_JPEG, "GIF": DENSEST_GIF}.get(kind, DENSEST)
        declare(kind, picture.size, densest * len(bare), spend)
        check_work(picture, bare)
        if kind == "JPEG":  # libjpeg reads 1/2, 1/4 or 1/8 of the size in much less time
            across = picture.width >= picture.height
            picture.draft(None, (at_least, 1) if across else (1, at_least))
        picture.load()
        return upright(flat(picture), orientation_of(exif or picture.info.get("exif", b"")))


def check_work(picture: ImageFile.ImageFile, bare: bytes) -> None:
    """Raise InvalidImage if a file asks for far more work than its size does."""
    pixels = picture.width * picture.height
    # Colours and opacity in two layers each, every frame rounded up to four times its size.
    if picture.format == "AVIF" and coded_pixels(bare) > 16 * pixels + 65_536:
        raise InvalidImage("the AVIF has far more pixels coded than it declares")
    run_length = picture.format == "BMP" and picture.info.get("compression") in (1, 2)
    if run_length and max(pixels, len(bare)) > MAX_RUN_LENGTH_PIXELS:
        raise InvalidImage(
            f"run-length BMPs of over {MAX_RUN_LENGTH_PIXELS:,} pixels or bytes are not read; "
            "save the picture as PNG"
        )


def open_tiff(data: bytes, spend: Spend) -> Image.Image:
    """Read the first page of a TIFF."""
    silence_libtiff()
    tiff = read_tiff(data, spend)
    if not is_pillows(tiff):
        return upright(read_deep(tiff), tiff.one(ORIENTATION))
    with TiffImageFile(io.BytesIO(bare_tiff(tiff))) as picture:
        picture.load()
        return upright(flat(picture), tiff.one(ORIENTATION))


@functools.cache
def silence_libtiff() -> None:
    """Have libtiff keep its errors to itself.

    It writes them to stderr: 371 MB for a damaged fax of 3,000 bytes. Pillow turns off its warnings
    and has no switch for its errors. A symbol of Pillow's module is looked up in the libraries that
    the module was linked with, so this is the libtiff that Pillow calls.
    """
    with suppress(AttributeError):  # where libtiff was linked into Pillow's module itself
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def open_heif(data: bytes, spend: Spend) -> Image.Image:
    """Read a HEIC. libheif makes the turns irot and imir itself."""
    try:
        import pillow_heif  # slow to load, and not everybody has it
    except ImportError as error:
        raise InvalidImage(
            "HEIC is not read here; the operator of this installation can add it: "
            + install_command(EXTRAS["pillow_heif"])
        ) from error
    file = pillow_heif.open_heif(io.BytesIO(without_exif_item("HEIF", data)))
    declare("HEIF", file.size, DENSEST * len(data), spend)
    pixels = file.data
    return flat(Image.frombytes(file.mode, file.size, pixels, "raw", file.mode, file.stride))
