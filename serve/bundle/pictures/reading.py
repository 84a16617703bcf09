"""Image files → upright 8-bit pictures: the pixels decide, whatever stands beside them.

Work is bounded before it is done: the size is allowed by ``spend`` before anything is unpacked, and
parts that cost time without adding pixels (scans, chunks, frames, strips) are counted.
"""

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image, features

from serve.bundle.distribution import EXTRAS, install_command
from serve.bundle.errors import InvalidImage
from serve.bundle.pictures.deep import read_deep
from serve.bundle.pictures.exif import orientation_of, without_exif_item
from serve.bundle.pictures.kinds import kind_of
from serve.bundle.pictures.parts import (
    PictureFile,
    bare_bmp,
    bare_gif,
    bare_jpeg,
    bare_png,
    bare_webp,
    truncated,
)
from serve.bundle.pictures.pnm import read_pnm
from serve.bundle.pictures.samples import Spend, declare, flat, keyed
from serve.bundle.pictures.tiff import bare_tiff, check_tiff, is_pillows, read_tiff

# What readers are known to raise on damaged files; tests/serve/test_pictures.py looks for more.
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
    zlib.error,
    Image.DecompressionBombError,
    Warning,  # where the operator has made warnings errors
)
# How a picture is turned upright, by its EXIF orientation (CIPA DC-008, tag 0x0112).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BARE: dict[str, Callable[[bytes], PictureFile]] = {
    "PNG": bare_png,
    "JPEG": bare_jpeg,
    "WEBP": bare_webp,
    "GIF": bare_gif,
    "BMP": bare_bmp,
}


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
        if kind == "AVIF":
            return open_avif(data, spend)
        if kind == "HEIF":
            return open_heif(data, spend)
        return open_bare(kind, BARE[kind](data), spend, at_least)
    except UNREADABLE as error:
        if "truncated" in str(error):
            raise truncated(kind) from error
        raise InvalidImage(f"the {kind} is damaged: its pixels can't be decoded") from error


def open_bare(kind: str, file: PictureFile, spend: Spend, at_least: int) -> Image.Image:
    """Read a file without its notes through Pillow."""
    declare(kind, file.width, file.height, spend)
    with Image.open(io.BytesIO(file.data), formats=[kind]) as picture:
        if kind == "JPEG":
            reduce_jpeg(picture, at_least)
        if file.transparent is not None:
            pixels = keyed(picture, file.transparent, file.deepest)
        else:
            picture.load()
            pixels = flat(on_canvas(picture, file))
    return upright(pixels, file.orientation)


def reduce_jpeg(picture: Image.Image, at_least: int) -> None:
    """Have libjpeg decode a JPEG at 1/2, 1/4 or 1/8 of its size, which takes much less time."""
    across = picture.width >= picture.height
    picture.draft(None, (at_least, 1) if across else (1, at_least))


def on_canvas(picture: Image.Image, file: PictureFile) -> Image.Image:
    """The first frame of an animated WebP on its transparent canvas; any other picture as it is."""
    if file.corner is None or picture.size == (file.width, file.height):
        return picture
    canvas = Image.new("RGBA", (file.width, file.height))
    canvas.paste(picture, file.corner)
    return canvas


def open_tiff(data: bytes, spend: Spend) -> Image.Image:
    """Read the first page of a TIFF."""
    tiff = read_tiff(data)
    declare("TIFF", tiff.width, tiff.height, spend)
    check_tiff(tiff)
    if not is_pillows(tiff):
        return upright(read_deep(tiff), tiff.orientation)
    with Image.open(io.BytesIO(bare_tiff(tiff)), formats=["TIFF"]) as picture:
        picture.load()
        return upright(flat(picture), tiff.orientation)


def open_avif(data: bytes, spend: Spend) -> Image.Image:
    """Read an AVIF. Pillow leaves the turns irot and imir to be made, as an EXIF orientation."""
    if not features.check("avif"):
        raise InvalidImage("AVIF is not read here; the operator can add it: Pillow 11.3 or newer")
    file = io.BytesIO(without_exif_item(data))
    with Image.open(file, formats=["AVIF"]) as picture:
        declare("AVIF", picture.width, picture.height, spend)
        picture.load()
        return upright(flat(picture), orientation_of(picture.info.get("exif", b"")))


def open_heif(data: bytes, spend: Spend) -> Image.Image:
    """Read a HEIC. libheif makes the turns irot and imir itself."""
    try:
        import pillow_heif  # slow to load, and not everybody has it
    except ImportError as error:
        raise InvalidImage(
            "HEIC is not read here; the operator of this installation can add it: "
            + install_command(EXTRAS["pillow_heif"])
        ) from error
    file = pillow_heif.open_heif(io.BytesIO(without_exif_item(data)))
    width, height = file.size
    declare("HEIF", width, height, spend)
    pixels = file.data
    return flat(Image.frombytes(file.mode, (width, height), pixels, "raw", file.mode, file.stride))


def upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Turn or mirror a picture by its EXIF orientation."""
    turn = TURNS.get(orientation)
    return picture if turn is None else picture.transpose(turn)
