"""Image files to and from model pixels.

Scaling to [0, 1] is not done here: it is the first operation of the exported encoder, so serving
can't drift from training.
"""

import io
import struct
import zlib
from functools import lru_cache

import numpy as np
import pyspng
from numpy.typing import NDArray
from PIL import Image

from serve.bundle.errors import InvalidImage, PayloadTooLarge
from serve.bundle.framing import frame, pad, with_polarity
from serve.bundle.ink import LARGEST_SIDE
from serve.bundle.limits import MAX_IMAGE_PIXELS, MAX_REQUEST_PIXELS
from serve.bundle.manifest import ImageSpec
from serve.bundle.pictures.parts import png_chunk
from serve.bundle.pictures.reading import open_picture

# A PNG is a signature, then chunks: length of the content, kind, content, and a checksum of both.
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHUNK = struct.Struct(">I4s")  # length and kind


def to_pixels(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32[...] in [0, 1] → uint8[...], rounded; what isn't a number becomes any pixel."""
    scaled: NDArray[np.float32] = np.rint(images * np.float32(255))
    with np.errstate(invalid="ignore"):
        return scaled.astype(np.uint8)


class PixelBudget:
    """The pixels that a request's files may still have: a few kilobytes can declare 50 million."""

    def __init__(self) -> None:
        self._left = MAX_REQUEST_PIXELS

    def spend(self, width: int, height: int) -> None:
        """Take the pixels that one file's header declares.

        Raises:
            InvalidImage: the file alone is over the limit for a file.
            PayloadTooLarge: with this file, the request is over the limit for a request.
        """
        pixels = width * height
        if pixels > MAX_IMAGE_PIXELS:
            raise InvalidImage(
                f"the image has {width} x {height} pixels; the limit is {MAX_IMAGE_PIXELS:,} in all"
            )
        if pixels > self._left:
            raise PayloadTooLarge(
                f"the images before this one and its {width} x {height} pixels exceed the limit "
                f"of {MAX_REQUEST_PIXELS:,} a request"
            )
        self._left -= pixels


def read_image(data: bytes, spec: ImageSpec, budget: PixelBudget) -> NDArray[np.uint8]:
    """Read one image file into the grid the encoder was trained on.

    A file of the model's own size passes unframed, whatever its colours; a file of another size is
    framed as the model's dataset was. The polarity is decided in the same way for both.

    Args:
        data: a file of any format in serve.bundle.pictures.kinds; its first page or frame counts.
        spec: what the model takes.
        budget: of the request that the file came in.

    Returns:
        ``uint8[C, H, W]``. A grey 8-bit file of the model's size, light ink on dark, comes back bit
        for bit.

    Raises:
        InvalidImage: unreadable, over the pixel limit, or without ink. Becomes HTTP 400.
        PayloadTooLarge: the request's files have too many pixels together. Becomes HTTP 413.
    """
    pixels = read_plain_png(data, spec)
    if pixels is None:
        at_least = max(spec.width, spec.height, LARGEST_SIDE)
        return channels_first(frame(open_picture(data, budget.spend, at_least), spec))
    budget.spend(spec.width, spec.height)
    return channels_first(with_polarity(pixels, spec.polarity))


def read_whole(data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an image file as people see it, to be shown beside what the model saw of it.

    Args:
        data: an image file that read_image has read.
        shape: (C, H, W) of the result.

    Returns:
        ``uint8[C, H, W]``: the whole picture, its proportions kept.
    """
    channels, height, width = shape
    picture = open_picture(data, PixelBudget().spend, max(height, width))
    mode = "L" if channels == 1 else "RGB"
    return channels_first(np.asarray(pad(picture.convert(mode), (width, height))))


def read_plain_png(data: bytes, spec: ImageSpec) -> NDArray[np.uint8] | None:
    """Read a PNG that holds pixels of the model's own size and mode, and nothing else.

    Most callers send such files, and libspng reads them in a quarter of Pillow's time. Any other
    file is left to Pillow, and so is a damaged file: Pillow decides whether to refuse it.

    Returns:
        ``uint8[H, W]`` or ``uint8[H, W, 3]``, or None for any other file.
    """
    head = plain_png_head(spec)
    if not data.startswith(head):
        return None
    packed = pixels_alone(data, len(head))
    if packed is None or not is_whole(packed, spec.height * (1 + spec.width * spec.channels)):
        return None
    try:
        pixels: NDArray[np.uint8] = pyspng.load(data)
    except RuntimeError:
        return None
    return pixels


@lru_cache(maxsize=4)  # a process serves one model
def plain_png_head(spec: ImageSpec) -> bytes:
    """The first bytes of any PNG with the model's size and mode, 8 bits deep, not interlaced."""
    colours = 0 if spec.channels == 1 else 2
    header = struct.pack(">IIBBBBB", spec.width, spec.height, 8, colours, 0, 0, 0)
    return PNG_SIGNATURE + png_chunk(b"IHDR", header)


def pixels_alone(png: bytes, at: int) -> bytes | None:
    """The compressed pixels, if every chunk from ``at`` on is whole and none changes their meaning.

    Chunks of transparency, orientation or animation do. Damage is looked for here and in
    ``is_whole``, since libspng doesn't report it: it reads as much of a damaged file as it can.
    """
    view, packed = memoryview(png), list[memoryview]()
    while at + PNG_CHUNK.size + 4 <= len(png):
        length, kind = PNG_CHUNK.unpack_from(png, at)
        end = at + PNG_CHUNK.size + length
        checksum = zlib.crc32(view[at + 4 : end]).to_bytes(4)
        if kind not in (b"IDAT", b"IEND") or view[end : end + 4] != checksum:
            return None
        if kind == b"IEND":
            return b"".join(packed)
        packed.append(view[at + PNG_CHUNK.size : end])
        at = end + 4
    return None


def is_whole(packed: bytes, size: int) -> bool:
    """Whether a zlib stream unpacks to ``size`` bytes that have its checksum."""
    unpacker = zlib.decompressobj()
    try:
        return len(unpacker.decompress(packed, size + 1)) == size and unpacker.eof
    except zlib.error:
        return False


def channels_first(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] or [H, W, C] → [C, H, W]."""
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def write_png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8[C, H, W] → a PNG file, greyscale for C = 1 and RGB for C = 3."""
    picture = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG")
    return file.getvalue()


def write_grid(images: NDArray[np.uint8]) -> bytes:
    """uint8[N, C, H, W], N ≥ 1 → one PNG, row by row in a grid about as wide as high."""
    count, channels, height, width = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, channels, height, width), np.uint8)
    cells[:count] = images
    grid = cells.reshape(rows, columns, channels, height, width).transpose(2, 0, 3, 1, 4)
    return write_png(grid.reshape(channels, rows * height, columns * width))
