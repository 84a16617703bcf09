"""Turns what a caller may pass as an image into what is sent: a file's bytes, or pixels.

The service reads files of any size and colours. Arrays are sent as they are: pixels of the model's
own size, uint8; for the shipped model 0 is background and 255 is ink.

Pillow is not imported here: a caller who passes a Pillow image has imported it already.
"""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class PillowImage(Protocol):
    """The attributes by which a Pillow image is recognised."""

    @property
    def mode(self) -> str:
        """The kind of the pixels, e.g. ``RGB``."""

    def convert(self, mode: str) -> "PillowImage":
        """Return a copy in another mode."""

    def getexif(self) -> Any:
        """The EXIF data, which hold the orientation."""

    def save(self, fp: BinaryIO, format: str, **options: Any) -> None:
        """Write the image as a file."""


Pixels: TypeAlias = NDArray[np.uint8]
Buffer: TypeAlias = bytes | bytearray | memoryview
File: TypeAlias = str | os.PathLike[str] | Buffer | BinaryIO | PillowImage
Image: TypeAlias = File | Pixels
Images: TypeAlias = Image | Iterable[Image]

Item: TypeAlias = bytes | Pixels  # A file's content, or uint8[C, H, W].

CHANNELS = (1, 3)  # The numbers of channels that a model may have.

# Pillow's modes that PNG can hold, those that the service reads in a TIFF, and those that no file
# holds, with the mode that Pillow converts them to.
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
TIFF_MODES = ("PA", "RGBX", "CMYK", "YCbCr", "I;16B", "I;16L")
CONVERTED = {"La": "LA", "RGBa": "RGBA", "HSV": "RGB"}
KINDS = "a path, bytes, a file opened in binary mode, a Pillow image or an array"


def is_array(image: object) -> bool:
    """Whether this is numpy's array, or another library's of two axes or more.

    A column of paths (pandas) is an array of one axis: here it is many images.
    """
    other = hasattr(image, "__array__") and getattr(image, "ndim", 0) > 1
    return isinstance(image, np.ndarray) or other


def is_single(images: Any) -> TypeGuard[Image]:
    """Whether this is one image, not a collection of images."""
    if is_array(images):
        return bool(images.ndim != 4)
    files = (str, os.PathLike, Buffer, PillowImage)
    return isinstance(images, files) or hasattr(images, "read")


def read_images(images: Images) -> Iterator[Item]:
    """Read one image, or each of many, when the next item is asked for.

    Yields:
        A file's bytes, or uint8[C, H, W]. An array uint8[N, C, H, W], also within a collection,
        yields N items.

    Raises:
        TypeError: an argument is no image.
        ValueError: an array has a shape that is no image's, or a Pillow image a mode that isn't
            read.
        OSError: a path can't be read.
    """
    if is_array(images) or is_single(images):
        yield from read_image(images)
    elif isinstance(images, Iterable):
        yield from read_each(images)
    else:
        raise TypeError(f"images are {KINDS}, or many of these; got {type(images).__name__}")


def read_each(images: Iterable[Any]) -> Iterator[Item]:
    """Read many images; the message about an argument that is no image names its place."""
    place = 0
    for image in images:
        try:
            items = read_image(image)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"image {place}: {error}") from error
        place += len(items)
        yield from items


def read_image(image: Any) -> Sequence[Item] | Pixels:
    """A file, or each image of an array."""
    return read_array(np.asarray(image)) if is_array(image) else [read_file(image)]


def read_file(image: Any) -> bytes:
    """The content of a file that was given as a path, bytes, an open file or a Pillow image.

    Raises:
        TypeError: the argument is none of these.
        ValueError: a Pillow image has a mode that isn't read.
        OSError: the path can't be read.
    """
    if isinstance(image, Buffer):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:  # noqa: PTH123 - an os.PathLike need not be a Path
            return file.read()
    if isinstance(image, PillowImage):
        return to_file(image)
    if not hasattr(image, "read"):
        raise TypeError(f"an image is {KINDS}; got {type(image).__name__}")
    try:
        content = image.read()
    except UnicodeDecodeError:  # The file was opened in text mode.
        content = None
    if not isinstance(content, bytes):
        raise TypeError('an image file has to be opened in binary mode: open(path, "rb")')
    return content


def to_file(image: PillowImage) -> bytes:
    """A Pillow image as a lossless file, with its orientation.

    Raises:
        ValueError: nobody knows which value is white in the image's mode (I, F), or the service
            doesn't read it (LAB).
    """
    exif = image.getexif()
    if image.mode in CONVERTED:
        image = image.convert(CONVERTED[image.mode])
    if image.mode not in PNG_MODES + TIFF_MODES:
        raise ValueError(
            f"a Pillow image of mode {image.mode} is not read; scale it to 8 bits, and convert it "
            "to L or RGB"
        )
    file = io.BytesIO()
    image.save(file, "PNG" if image.mode in PNG_MODES else "TIFF", exif=exif)
    return file.getvalue()


def read_array(array: NDArray[Any]) -> Sequence[Pixels] | Pixels:
    """Take an array apart into uint8[C, H, W].

    Args:
        array: uint8[H, W]; uint8[C, H, W] or uint8[H, W, C]; or uint8[N, C, H, W]. C is 1 or 3.

    Raises:
        TypeError: the array's elements aren't uint8.
        ValueError: the shape is none of these, or could be two of them.
    """
    if array.dtype != np.uint8:
        raise TypeError(
            f"an image's pixels are uint8, 0 to 255; this array is {array.dtype}: for pixels in "
            "[0, 1] send (255 * x).astype(np.uint8)"
        )
    if array.ndim == 2:
        return [array[None]]
    if array.ndim == 3:
        return [channels_first(array)]
    if array.ndim == 4 and array.shape[1] in CHANNELS:
        return array
    raise ValueError(
        "an array is [H, W], [C, H, W], [H, W, C] or [N, C, H, W] with C = 1 or 3; "
        f"this one is {list(array.shape)}"
    )


def channels_first(array: Pixels) -> Pixels:
    """One image, [C, H, W] or [H, W, C], as [C, H, W].

    Raises:
        ValueError: neither the first nor the last axis can be the channels, or both can.
    """
    first, last = array.shape[0] in CHANNELS, array.shape[2] in CHANNELS
    if first and not last:
        return array
    if last and not first:
        return array.transpose(2, 0, 1)
    why = (
        "either axis could be the channels; add an axis in front, [1, C, H, W]"
        if first
        else "many grey images are [N, 1, H, W]: array[:, None]"
    )
    raise ValueError(
        "an array of three axes is one image, [C, H, W] or [H, W, C] with C = 1 or 3; "
        f"this one is {list(array.shape)}: {why}"
    )
