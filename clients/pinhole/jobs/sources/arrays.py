"""Sources that are one array of pixels: .npy, and IDX, MNIST's own format (.gz or not).

An image's name is its number. Images are read, not mapped into memory: if a mapped file became
shorter while it is read, the process would die of SIGBUS.
"""

import gzip
import io
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pinhole.jobs.errors import JobError
from pinhole.jobs.sources import Chunk, Content, Stream, check_stamp, cut, stamp
from pinhole.jobs.sources.suffixes import LeftOut

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

    def __init__(self, path: Path, layout: Layout) -> None:
        self.count, self.digest = layout.count, array_digest(path, layout)
        self.left_out = LeftOut()
        self._path, self._layout, self._stamp = path, layout, stamp(path)

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """See Source."""
        for run in cut(numbers, size, lambda _: self._layout.size):
            yield Chunk(run, [str(number) for number in run], self._loader(run))

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _loader(self, wanted: list[int]) -> Callable[[], Iterator[Content]]:
        """A function that reads the images of these numbers when it is called."""

        def load() -> Iterator[Content]:
            check_stamp(self._path, self._stamp)
            with self._path.open("rb") as file:
                for first, count in runs(wanted):
                    file.seek(self._layout.offset + first * self._layout.size)
                    yield from read_rows(file, count, self._layout)

        return load


def runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Growing numbers as (first, count) of their runs of consecutive numbers."""
    first = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[first], end - first
            first = end


def read_rows(file: io.BufferedIOBase, count: int, layout: Layout) -> NDArray[np.uint8]:
    """The next ``count`` images of an open file: uint8[count, C, H, W].

    Raises:
        JobError: the file ends before the last of them.
    """
    data = file.read(count * layout.size)
    if len(data) < count * layout.size:
        raise JobError("the array ends before its last image: its file was cut short")
    return np.frombuffer(data, np.uint8).reshape(count, *layout.shape)


def array_digest(path: Path, layout: Layout) -> str:
    """A digest that changes with the file, and with where the array lies in it."""
    return sha256(f"array {stamp(path)} {layout}".encode()).hexdigest()


def npy_source(path: Path) -> Rows:
    """The images of a .npy file: uint8[N, H, W] or uint8[N, C, H, W].

    Raises:
        JobError: the file is damaged, or holds an array of another kind.
    """
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(file)
        except (ValueError, KeyError) as error:
            raise JobError(f"{path} can't be read as an array") from error
        if dtype != np.uint8 or fortran:
            order = " in Fortran order" if fortran else ""
            raise JobError(f"{path}: images are uint8[N, H, W] or uint8[N, C, H, W] in C order; "
                           f"this array is {dtype}{list(shape)}{order}")  # fmt: skip
        return Rows(path, layout_of(path, file.tell(), shape))


def layout_of(path: Path, offset: int, shape: tuple[int, ...]) -> Layout:
    """The layout of uint8[N, H, W] or uint8[N, C, H, W].

    Raises:
        JobError: the shape has another number of dimensions, or images without pixels.
    """
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise JobError(
            f"{path}: images are uint8[N, H, W] or uint8[N, C, H, W]; "
            f"this array is uint8{list(shape)}"
        )
    return Layout(offset, shape[0], (1, *shape[1:]) if len(shape) == 3 else tuple(shape[1:]))


def idx_source(path: Path) -> "Rows | Stream":
    """The images of an IDX file.

    Raises:
        JobError: the file is damaged, or its images have no pixels.
    """
    try:
        with open_idx(path) as file:
            layout = idx_layout(path, file)
    except (EOFError, gzip.BadGzipFile, struct.error, zlib.error) as error:
        raise JobError(f"{path} can't be read as an IDX file") from error
    return packed_idx_source(path, layout) if is_gzip(path) else Rows(path, layout)


def open_idx(path: Path) -> io.BufferedIOBase:
    """Open an IDX file, decompressed if it is a gzip file."""
    return gzip.open(path) if is_gzip(path) else path.open("rb")


def idx_layout(path: Path, file: io.BufferedIOBase) -> Layout:
    """The layout that an IDX file's header tells."""
    dimensions = file.read(4)[3]
    shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    return layout_of(path, 4 + 4 * dimensions, shape)


def packed_idx_source(path: Path, layout: Layout) -> Stream:
    """The images of a compressed IDX file, unpacked from its beginning for each reading."""

    def items(start: int) -> Iterator[tuple[str, Content]]:
        return islice(all_items(), start, None)

    def all_items() -> Iterator[tuple[str, Content]]:
        try:
            with open_idx(path) as file:
                file.read(layout.offset)
                for number in range(layout.count):
                    yield str(number), read_rows(file, 1, layout)[0]
        except (EOFError, OSError, zlib.error) as error:
            raise JobError(f"{path} can't be read as an IDX file: {error}") from error

    return Stream(layout.count, array_digest(path, layout), items)


def is_gzip(path: Path) -> bool:
    """Whether this is a gzip file, by its first bytes."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def is_idx(start: bytes) -> bool:
    """Whether these are the first bytes of an IDX file of bytes with three or four dimensions."""
    return len(start) >= 4 and start[:3] == bytes((0, 0, IDX_UINT8)) and start[3] in (3, 4)
