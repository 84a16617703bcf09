"""Turns what a caller may pass as an image into what is sent: a file's bytes, or pixels.

The service reads files of any size and colours. Arrays are sent as they are: pixels of the model's
own size, uint8; for the shipped model 0 is background and 255 is ink.

Pillow is not imported here: a caller who passes a Pillow image has imported it already.
"""

import io
import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class PillowImage(Protocol):
    """The attributes by which a Pillow image is recognised."""

    @property
    def mode(self) -> str:
        """The kind of the pixels, e.g. ``RGB``."""

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

# Pillow's modes that PNG can hold; images of other modes are sent as TIFF.
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
KINDS = "a path, bytes, a file opened in binary mode, a Pillow image or a numpy array"


def is_single(images: Images) -> TypeGuard[Image]:
    """Whether this is one image, not a collection of images."""
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    files = (str, os.PathLike, Buffer, PillowImage)
    return isinstance(images, files) or hasattr(images, "read")


def read_images(images: Images) -> Iterator[Item]:
    """Read one image, or each of many, when the next item is asked for.

    Yields:
        A file's bytes, or uint8[C, H, W]. An array uint8[N, C, H, W], also within a collection,
        yields N items.

    Raises:
        TypeError: an argument is no image.
        ValueError: an array has a shape that is no image's.
        OSError: a path can't be read.
    """
    if isinstance(images, np.ndarray) or is_single(images):
        yield from read_image(images)
    elif isinstance(images, Iterable):
        for image in images:
            yield from read_image(image)
    else:
        raise TypeError(f"images are {KINDS}, or many of these; got {type(images).__name__}")


def read_image(image: Any) -> Iterator[Item]:
    """Read a file, or each image of an array."""
    if isinstance(image, np.ndarray):
        yield from read_array(image)
    else:
        yield read_file(image)


def read_file(image: Any) -> bytes:
    """The content of a file that was given as a path, bytes, an open file or a Pillow image.

    Raises:
        TypeError: the argument is none of these.
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
    content = image.read()
    if not isinstance(content, bytes):
        raise TypeError('an image file has to be opened in binary mode: open(path, "rb")')
    return content


def to_file(image: PillowImage) -> bytes:
    """A Pillow image as a lossless file, with its orientation."""
    file = io.BytesIO()
    kind = "PNG" if image.mode in PNG_MODES else "TIFF"
    image.save(file, kind, exif=image.getexif())
    return file.getvalue()


def read_array(array: NDArray[Any]) -> Iterator[Pixels]:
    """Take an array apart into uint8[C, H, W].

    Args:
        array: uint8[H, W]; uint8[C, H, W] or uint8[H, W, C]; or uint8[N, C, H, W]. C is 1 or 3.

    Raises:
        TypeError: the array's elements aren't uint8.
        ValueError: the shape is none of these, or could be two of them.
    """
    if array.dtype != np.uint8:
        raise TypeError(f"an image's pixels are uint8, 0 to 255; this array is {array.dtype}")
    if array.ndim == 2:
        yield array[None]
    elif array.ndim == 3:
        yield channels_first(array)
    elif array.ndim == 4 and array.shape[1] in CHANNELS:
        yield from array
    else:
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
