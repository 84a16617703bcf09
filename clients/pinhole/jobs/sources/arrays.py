"""Sources that are one array of pixels: .npy, and IDX, MNIST's own format (.gz or not).

An image's name is its number. Images are read, not mapped into memory: if a mapped file became
shorter while it is read, the process would die of SIGBUS.
"""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from pinhole.jobs.errors import HoldsNoImages, JobError
from pinhole.jobs.sources import Chunk, Content, Stream, cut
from pinhole.jobs.sources.places import Place
from pinhole.jobs.sources.suffixes import LeftOut
from pinhole.tensors import BAD_HEADER

# The third byte of an IDX file whose elements are bytes; the fourth is the number of dimensions
# (http://yann.lecun.com/exdb/mnist).
IDX_UINT8 = 0x08


@dataclass(frozen=True)
class Layout:
    """Where in a file an array of images lies.

    Attributes:
        offset: of the first image, in bytes.
        count: number of images.
        shape: (C, H, W) of one image.
    """

    offset: int
    count: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape)


class Rows:
    """The images of an array in an uncompressed file, read from their offsets, in any order."""

    stamps = None

    def __init__(self, place: Place, layout: Layout) -> None:
        self.count, self.digest = layout.count, array_digest(place, layout)
        self.left_out = LeftOut()
        self._place, self._layout, self._check = place, layout, place.checker()

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """See Source."""
        for run in cut(numbers, size, lambda _: self._layout.size):
            yield Chunk(run, list(map(str, run)), partial(self._load, run))

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _load(self, wanted: list[int]) -> Iterator[Content]:
        """Read the images of these numbers."""
        self._check()
        with self._place.open() as file:
            for first, count in runs(wanted):
                file.seek(self._layout.offset + first * self._layout.size)
                yield from read_rows(file, count, self._layout)
        self._check()


def runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Growing numbers as (first, count) of their runs of consecutive numbers."""
    first = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[first], end - first
            first = end


def read_rows(file: IO[bytes], count: int, layout: Layout) -> NDArray[np.uint8]:
    """The next ``count`` images of an open file: uint8[count, C, H, W].

    Raises:
        JobError: the file ends before the last of them.
    """
    data = file.read(count * layout.size)
    if len(data) < count * layout.size:
        raise JobError("the array ends before its last image: its file was cut short")
    return np.frombuffer(data, np.uint8).reshape(count, *layout.shape)


def array_digest(place: Place, layout: object) -> str:
    """A digest that changes with the file, and with where the array lies in it."""
    return sha256(f"array {place.stamp()} {layout}".encode()).hexdigest()


def npy_source(place: Place) -> Rows:
    """The images of a .npy file: uint8[N, H, W] or uint8[N, C, H, W].

    Raises:
        JobError: the file is damaged, or holds an array of another kind.
    """
    with place.open() as file:
        return Rows(place, npy_layout(str(place), file))


def npy_layout(name: str, file: IO[bytes]) -> Layout:
    """The layout that the header of a .npy file tells.

    Args:
        name: for messages.
        file: at its beginning, and its end can be sought.

    Raises:
        JobError: the file is damaged, or holds an array of another kind.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file)
    except BAD_HEADER as error:
        raise JobError(f"{name} can't be read as an array") from error
    if dtype != np.uint8 or fortran:
        order = " in Fortran order" if fortran else ""
        raise HoldsNoImages(
            f"{name}: images are uint8[N, H, W] or uint8[N, C, H, W] in C order; "
            f"this array is {dtype}{list(shape)}{order}"
        )
    return layout_of(name, file, shape)


def layout_of(name: str, file: IO[bytes], shape: tuple[int, ...]) -> Layout:
    """The layout of uint8[N, H, W] or uint8[N, C, H, W].

    Args:
        name: for messages.
        file: at the first image.
        shape: that its header tells.

    Raises:
        HoldsNoImages: the shape has another number of dimensions, or images without pixels.
        JobError: the file is too short for it. This is looked for before the first image is read,
            so that in a folder one damaged file costs one row, not the job.
    """
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise HoldsNoImages(
            f"{name}: images are uint8[N, H, W] or uint8[N, C, H, W]; "
            f"this array is uint8{list(shape)}"
        )
    if min(shape) < 0:
        raise JobError(f"{name} can't be read as an array: its shape is {list(shape)}")
    offset, expected = file.tell(), math.prod(shape)
    actual = file.seek(0, os.SEEK_END) - offset
    if actual < expected:
        raise JobError(
            f"{name} was cut short: its header promises {expected:,} bytes of pixels, and it holds "
            f"{actual:,}"
        )
    return Layout(offset, shape[0], (1, *shape[1:]) if len(shape) == 3 else tuple(shape[1:]))


def idx_source(place: Place) -> "Rows | Stream":
    """The images of an IDX file.

    Raises:
        JobError: the file is damaged, or its images have no pixels.
    """
    try:
        with open_idx(place) as file:
            dimensions = file.read(4)[3]
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            layout = layout_of(str(place), file, shape)
    except (EOFError, gzip.BadGzipFile, struct.error, zlib.error) as error:
        raise JobError(f"{place} can't be read as an IDX file") from error
    return packed_idx_source(place, layout) if is_gzip(place) else Rows(place, layout)


@contextmanager
def open_idx(place: Place) -> Iterator[IO[bytes]]:
    """Open an IDX file, decompressed if it is a gzip file."""
    with place.open() as file, gzip.open(file) if is_gzip(place) else file as unpacked:
        yield cast("IO[bytes]", unpacked)


def packed_idx_source(place: Place, layout: Layout) -> Stream:
    """The images of a compressed IDX file, unpacked from its beginning for each reading."""

    def items(start: int) -> Iterator[tuple[str, Content]]:
        try:
            with open_idx(place) as file:
                file.seek(layout.offset + start * layout.size)
                for number in range(start, layout.count):
                    yield str(number), read_rows(file, 1, layout)[0]
        except (EOFError, OSError, zlib.error) as error:
            raise JobError(f"{place} can't be read as an IDX file: {error}") from error

    return Stream(layout.count, array_digest(place, layout), items, place.checker())


def is_gzip(place: Place) -> bool:
    """Whether this is a gzip file, by its first bytes."""
    with place.open() as file:
        return file.read(2) == b"\x1f\x8b"


def is_idx(start: bytes) -> bool:
    """Whether these are the first bytes of an IDX file of bytes with three or four dimensions."""
    return len(start) >= 4 and start[:3] == bytes((0, 0, IDX_UINT8)) and start[3] in (3, 4)
