"""Sources that are a .npz file: a zip file of arrays, as numpy.savez writes it."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from pinhole.jobs.errors import HoldsNoImages, JobError
from pinhole.jobs.sources import Content, Stream
from pinhole.jobs.sources.arrays import Layout, array_digest, npy_layout, read_rows
from pinhole.jobs.sources.places import Place


def is_npz(place: Place, start: bytes) -> bool:
    """Whether a zip file holds arrays and nothing else; its first bytes show the first member."""
    length = int.from_bytes(start[26:28], "little")
    if not start[30 : 30 + length].endswith(b".npy"):
        return False
    with unzipped(place) as archive:
        return all(name.endswith(".npy") for name in archive.namelist())


def npz_source(place: Place, column: str | None) -> Stream:
    """The images of the arrays in a .npz file, or of the array called ``column``.

    Raises:
        JobError: the file is damaged.
        HoldsNoImages: none of its arrays is uint8[N, H, W] or uint8[N, C, H, W].
    """
    arrays = list[tuple[str, Layout]]()
    with unzipped(place) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            with suppress(HoldsNoImages), archive.open(member) as file:
                layout = npy_layout(f"{name} in {place}", file)
                arrays += [(member, layout)] * (column in (None, name))
    if not arrays:
        called = f" called {column}" if column else ""
        raise HoldsNoImages(f"{place} holds no uint8[N, H, W] or uint8[N, C, H, W]{called}")
    count = sum(layout.count for _, layout in arrays)
    items = partial(npz_items, place, arrays)
    return Stream(count, array_digest(place, arrays), items, place.checker())


def npz_items(
    place: Place, arrays: Sequence[tuple[str, Layout]], start: int
) -> Iterator[tuple[str, Content]]:
    """Yield (name, pixels) of the images from ``start`` on in these members of a .npz file.

    Raises:
        JobError: the file is damaged.
    """
    with unzipped(place) as archive:
        for member, layout in arrays:
            with archive.open(member) as file:
                first = min(start, layout.count)
                start -= first
                file.seek(layout.offset + first * layout.size)
                for number in range(first, layout.count):
                    yield f"{member.removesuffix('.npy')}/{number}", read_rows(file, 1, layout)[0]


@contextmanager
def unzipped(place: Place) -> Iterator[zipfile.ZipFile]:
    """A .npz file, opened.

    Raises:
        JobError: it is damaged.
    """
    try:
        with place.open() as file, zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise JobError(f"{place} can't be read as a .npz file: {error}") from error
