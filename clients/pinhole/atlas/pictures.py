"""The images that a result's rows were made of: read again, and made small."""

import base64
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinhole.atlas.result import Result
from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.sources import Content, Source
from pinhole.jobs.sources.opening import open_source
from serve.bundle.errors import RequestError
from serve.bundle.images import PixelBudget, read_image
from serve.bundle.manifest import ImageSpec
from serve.bundle.pictures.reading import open_picture

THUMBNAIL_PX = 48
WEBP_QUALITY = 70
READ_TOGETHER = 64  # Images; of a source elsewhere, each chunk asks whether it has changed.

Readable = bytes | NDArray[np.uint8]  # A file, or pixels uint8[C, H, W].


class Wanted(NamedTuple):
    """Which image is wanted.

    Attributes:
        row: its place in the result, from 0.
        path: as the job wrote it.
        sha256: of its file or pixels; None if the result doesn't say.
    """

    row: int
    path: str
    sha256: str | None


Read = Callable[[Sequence[Wanted]], Iterator[Content | None]]


@dataclass(frozen=True)
class Originals:
    """Where a result's images can be read again.

    Attributes:
        name: of the source or folder; None if nothing can be read.
        why: why nothing can be read.
        read: yields the content of each image, None for what isn't there; the images' rows grow.
    """

    name: str | None
    why: str = ""
    read: Read = lambda images: (None for _ in images)

    def contents(self, table: Any) -> Iterator[Readable | None]:
        """Yield the file or pixels of each row of a pyarrow.Table, None where it isn't the same.

        Args:
            table: with ``row``, growing, ``path`` and perhaps ``sha256``.
        """
        rows, paths = table["row"].to_pylist(), table["path"].to_pylist()
        sums = table["sha256"].to_pylist() if "sha256" in table.column_names else [None] * len(rows)
        images = [Wanted(*each) for each in zip(rows, paths, sums, strict=True)]
        for image, content in zip(images, self.read(images), strict=True):
            there = None if isinstance(content, Fault) else content
            yield None if there is None or is_changed(there, image.sha256) else there


@contextmanager
def open_originals(result: Result, images: Path | None) -> Iterator[Originals]:
    """The source that a result names, or the folder of images that the user names."""
    if images:
        yield Originals(str(images), read=partial(read_folder, images.resolve()))
    elif not result.source:
        yield Originals(None, "the result doesn't say where its images are")
    else:
        try:
            source = open_source(result.source, result.metadata.get("column"))
        except JobError as error:
            yield Originals(None, str(error))
            return
        with closing(source):
            yield Originals(result.source, read=partial(read_source, source))


def read_folder(root: Path, images: Sequence[Wanted]) -> Iterator[Content | None]:
    """Yield the files in a folder, by their paths; what lies outside the folder isn't read."""
    for image in images:
        path = (root / image.path).resolve()
        try:
            there = path.is_relative_to(root) and path.is_file()
            yield path.read_bytes() if there else None
        except (OSError, ValueError):  # A path may hold a NUL.
            yield None


def read_source(source: Source, images: Sequence[Wanted]) -> Iterator[Content | None]:
    """Yield the images of a source, by their names, or where it can't tell these by their rows."""
    numbers = find_again(source, images)
    contents = read_numbers(source, [number for number in numbers if number is not None])
    done = 0
    with suppress(JobError):  # The source has changed since it was listed.
        for image, number in zip(images, numbers, strict=True):
            name, content = ("", None) if number is None else next(contents)
            yield content if name == image.path else None
            done += 1
    yield from (None for _ in images[done:])


def find_again(source: Source, images: Sequence[Wanted]) -> list[int | None]:
    """The images' numbers in their source, which are their rows unless other files are there now.

    Returns:
        A number for each image that may still be there; None for the others.
    """
    rows = [image.row if image.row < source.count else None for image in images]
    if source.stamps is None:
        return rows
    asked = sorted({row for row in rows if row is not None})
    names = {number: name for number, name, _ in source.stamps(asked)}
    if None not in rows and all(names.get(each.row, each.path) == each.path for each in images):
        return rows
    paths, there, named = {image.path for image in images}, dict[str, int](), 0
    for number, name, _ in source.stamps(range(source.count)):
        named = number + 1
        if name in paths:
            there[name] = number
    unnamed = range(named, source.count)  # In archives and arrays: only reading tells their names.
    return [there.get(each.path, each.row if each.row in unnamed else None) for each in images]


def read_numbers(source: Source, numbers: Sequence[int]) -> Iterator[tuple[str, Content]]:
    """Yield (name, content) of the inputs of these numbers; as long as they grow, in one reading.

    Raises:
        JobError: the source has changed since it was listed.
    """
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] <= numbers[end - 1]:
            for chunk in source.chunks(numbers[start:end], READ_TOGETHER):
                yield from zip(chunk.names, chunk.load(), strict=True)
            start = end


def is_changed(content: Readable, sha256: str | None) -> bool:
    """Whether a content isn't that which was embedded, as far as its sha256 is known."""
    data = content if isinstance(content, bytes) else content.tobytes()
    return sha256 is not None and hashlib.sha256(data).hexdigest() != sha256


def seen_of(content: Readable, image: ImageSpec | None) -> NDArray[np.uint8] | None:
    """What the model saw of an image: uint8[C, H, W]; None if that isn't known, or has no ink."""
    if isinstance(content, np.ndarray):
        return content
    if image:
        with suppress(RequestError):
            return read_image(content, image, PixelBudget())
    return None


def whole_of(content: Readable, at_least: int) -> Image.Image | None:
    """The whole picture; None if it can't be read.

    Args:
        content: of the image.
        at_least: pixels that are needed on the longer side.
    """
    if isinstance(content, np.ndarray):
        return to_picture(content)
    with suppress(RequestError):
        return open_picture(content, PixelBudget().spend, at_least)
    return None


def thumbnail(content: Readable | None, image: ImageSpec | None) -> bytes:
    """A small WebP of what the model saw, or else of the whole picture; b"" if there is none."""
    if content is None:
        return b""
    seen = seen_of(content, image)
    picture = whole_of(content, THUMBNAIL_PX) if seen is None else to_picture(seen)
    return small(picture, THUMBNAIL_PX) if picture else b""


def small(picture: Image.Image, side_px: int) -> bytes:
    """A picture as WebP, at most ``side_px`` wide and high."""
    picture.thumbnail((side_px, side_px))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=WEBP_QUALITY)
    return file.getvalue()


def to_picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """uint8[C, H, W] as a picture."""
    channels = pixels.shape[0]
    return Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))


def in_base64(contents: Iterable[bytes], most_bytes: int) -> Iterator[str]:
    """Yield files in base64 until ``most_bytes`` are used up; the rest isn't even made."""
    for content in contents:
        yield base64.b64encode(content).decode()
        most_bytes -= len(content)
        if most_bytes <= 0:
            return
