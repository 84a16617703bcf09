"""Parquet files with a column of images: files as bytes, Hugging Face's structs, or paths.

Hugging Face's structs have the fields ``bytes`` and ``path``; where the bytes are null, the path
says where the file is. A list in a cell holds any number of images.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from pinhole.jobs.errors import Fault, HoldsNoImages, JobError, too_large
from pinhole.jobs.shards import told
from pinhole.jobs.sources import LARGEST_FILE, Content, Stream
from pinhole.jobs.sources.files import Files, by_name, read_named
from pinhole.jobs.sources.listing import Listing
from pinhole.jobs.sources.places import Place, find_place
from pinhole.jobs.sources.walking import size_of

PAGE_BYTES = 64 << 10  # Read at a time; pyarrow would read the whole column of a row group.

# The most that is read at a time, in rows and in about so many bytes.
BATCH_ROWS, BATCH_BYTES = 256, 256 << 10

# What tells a column's Arrow type.
BYTES = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
TEXTS = (types.is_string, types.is_large_string, types.is_string_view)
LISTS = (types.is_list, types.is_large_list, types.is_fixed_size_list)

BAD = (pa.ArrowException, OSError)  # What reading a damaged file raises.

Item = tuple[str, Content]


def parquet_source(place: Place, column: str | None, alone: bool) -> Files | Stream:
    """The images of a Parquet file, in its order.

    Args:
        place: the file.
        column: which column holds the images; None takes the only column that can, or the column
            called ``image``.
        alone: the file is all of SOURCE. Only then are texts taken for paths without ``column``.

    Raises:
        JobError: the file is damaged, or it isn't clear which column holds the images.
        HoldsNoImages: no column can.
    """
    with opened(place) as file:
        schema, metadata = file.schema_arrow, file.metadata
    if told(schema) and not alone:
        raise HoldsNoImages(f"{place} is a job's result")
    image = choose_column(place, schema, column, alone)
    if holds_paths(schema.field(image).type):
        return path_source(place, image)
    named = "path" if "path" in schema.names and holds_paths(schema.field("path").type) else None
    table = Table(place, image, named, is_any(schema.field(image).type, LISTS))
    count = sum(table.images_in(metadata, group) for group in range(metadata.num_row_groups))
    digest = sha256(f"parquet {place.stamp()} {image}".encode()).hexdigest()
    return Stream(count, digest, table.items, place.checker())


@contextmanager
def opened(place: Place) -> Iterator[Any]:
    """Open a Parquet file, as a pyarrow.parquet.ParquetFile that reads page by page.

    Raises:
        JobError: it is damaged.
    """
    try:
        # pyarrow would take a name such as run:1.parquet for a URI, so it is given an open file.
        with (
            place.open() as raw,
            pq.ParquetFile(raw, buffer_size=PAGE_BYTES, pre_buffer=False) as file,
        ):
            yield file
    except BAD as error:
        raise JobError(f"{place} can't be read as a Parquet file") from error


def choose_column(place: Place, schema: Any, wanted: str | None, alone: bool) -> str:
    """The column that holds the images.

    Raises:
        JobError: there are several, and none is called ``image``, or ``path`` if they are paths.
        HoldsNoImages: there is no such column.
    """
    files = [field.name for field in schema if holds_files(field.type)]
    paths = [field.name for field in schema if holds_paths(field.type)]
    if wanted in files or wanted in paths:
        return str(wanted)
    fit = files or (paths if alone else [])
    if wanted is not None or not fit:
        which = f"{wanted} of image files; it has {', '.join(fit) or 'none'}" if wanted else ""
        raise HoldsNoImages(f"{place} has no column {which or 'of image files'}")
    usual = [name for name in ("image", "path") if name in fit]
    if usual or len(fit) == 1:
        return str((usual or fit)[0])
    raise JobError(
        f"{place} has {len(fit)} columns that may hold image files ({', '.join(fit)}): "
        "say which with --column"
    )


def holds_files(kind: Any) -> bool:
    """Whether a column of this Arrow type may hold files: bytes, structs of them, lists of both."""
    if is_any(kind, LISTS) or types.is_dictionary(kind):
        return not is_any(kind.value_type, LISTS) and holds_files(kind.value_type)
    if types.is_struct(kind):
        names = [field.name for field in kind]
        # A file without any bytes has a column of nulls.
        nulls = "path" in names and "bytes" in names and types.is_null(kind.field("bytes").type)
        return nulls or ("bytes" in names and holds_files(kind.field("bytes").type))
    return is_any(kind, BYTES)


def holds_paths(kind: Any) -> bool:
    """Whether a column of this Arrow type holds texts."""
    return is_any(kind.value_type if types.is_dictionary(kind) else kind, TEXTS)


def is_any(kind: Any, tests: Sequence[Callable[[Any], bool]]) -> bool:
    """Whether one of the tests is true of an Arrow type."""
    return any(test(kind) for test in tests)


@dataclass(frozen=True)
class Table:
    """A Parquet file, and what of it is read.

    Attributes:
        place: the file.
        image: the column of images.
        named: the column of their names, if there is one.
        lists: whether a cell holds a list of images; an empty list counts as one image, a bad one.
    """

    place: Place
    image: str
    named: str | None
    lists: bool

    def images_in(self, metadata: Any, group: int) -> int:
        """The number of images in a row group, which is told without reading them."""
        about = metadata.row_group(group)
        if not self.lists:
            return int(about.num_rows)
        leaves = [about.column(leaf) for leaf in range(about.num_columns)]
        found = [leaf for leaf in leaves if leaf.path_in_schema.startswith(f"{self.image}.")]
        return int(found[0].num_values)

    def items(self, start: int) -> Iterator[Item]:
        """Yield (name, file) of every image from ``start`` on; row groups before it aren't read.

        Raises:
            JobError: the file is damaged as a whole.
        """
        with opened(self.place) as file:
            row = 0
            for group in range(file.num_row_groups):
                count = self.images_in(file.metadata, group)
                if start < count:
                    found = padded(self._group_items(file, group, row), count, row)
                    yield from islice(found, start, None)
                start = max(0, start - count)
                row += file.metadata.row_group(group).num_rows

    def _group_items(self, file: Any, group: int, row: int) -> Iterator[Item]:
        """Yield (name, file) of every image in a row group that begins with this row."""
        about = file.metadata.row_group(group)
        row_bytes = 1 + about.total_byte_size // max(1, about.num_rows)
        size = min(BATCH_ROWS, 1 + BATCH_BYTES // row_bytes)
        columns = [self.image, self.named] if self.named else [self.image]
        for batch in file.iter_batches(size, row_groups=[group], columns=columns):
            for number, cells in enumerate(rows_of(batch), row):
                yield from self._row_items(cells, number)
            row += len(batch)

    def _row_items(self, cells: dict[str, Any] | None, row: int) -> Iterator[Item]:
        """Yield (name, file) of every image in a row, or a fault where there are no cells.

        It is called by the row's path, or by its own path, or else by its number.
        """
        if cells is None:
            yield str(row), Fault("Unreadable", "can't be read: its path isn't UTF-8")
            return
        images = (cells[self.image] or [None]) if self.lists else [cells[self.image]]
        for at, image in enumerate(images):
            end = f"/{at}" if self.lists else ""
            path = image.get("path") if isinstance(image, dict) else None
            name = cells[self.named] if self.named else None
            yield f"{name}{end}" if name else str(path or f"{row}{end}"), self._file_of(image)

    def _file_of(self, image: Any) -> Content:
        """The file that an image is, or that its path names, or why there is none."""
        data = image.get("bytes") if isinstance(image, dict) else image
        if data is None and isinstance(image, dict) and image.get("path"):
            return read_named(partial(named_by, self.place), image["path"])
        if data is None:
            return Fault("Unreadable", "can't be read: the cell is empty")
        return too_large(len(data), LARGEST_FILE) if len(data) > LARGEST_FILE else bytes(data)


def rows_of(batch: Any) -> list[dict[str, Any] | None]:
    """A batch's rows as column → cell; None where a text isn't UTF-8."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if len(batch) == 1:
            return [None]
        half = len(batch) // 2
        return rows_of(batch.slice(0, half)) + rows_of(batch.slice(half))


def padded(items: Iterator[Item], count: int, row: int) -> Iterator[Item]:
    """The ``count`` items of a row group that begins with this row; faults from a bad page on."""
    done = 0
    with suppress(*BAD):
        for item in islice(items, count):
            yield item
            done += 1
    fault = Fault("Unreadable", "can't be read: damaged in the Parquet file")
    for number in range(done, count):
        yield str(row + number), fault


def path_source(place: Place, column: str) -> Files:
    """The files that a column of a Parquet file names."""

    def entries() -> Iterator[tuple[str, int, int, str]]:
        with opened(place) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=[column]):
                for cells in rows_of(batch):
                    path = (cells and cells[column]) or ""
                    elsewhere = place.fs is not None or "://" in path
                    file_name = path if elsewhere else named_by(place, path).path
                    size, mark = size_of(file_name, elsewhere)
                    yield path, size, 0, mark

    listing = Listing(f"paths {place.stamp()} {column}", entries())
    return Files(listing, by_name(partial(read_named, partial(named_by, place))))


def named_by(place: Place, path: str) -> Place:
    """The file that a path in a Parquet file names: beside that or, if there is none, as it is.

    Raises:
        JobError: it is a URL that can't be opened.
    """
    if "://" in path:
        return find_place(path)
    found = place.beside(path)
    if place.fs is None and not os.path.exists(found.path):  # noqa: PTH110 - speed
        return Place(path)
    return found
