"""Parquet files with a column of images: bytes, or structs of bytes and path.

Hugging Face's datasets have such structs.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pinhole.jobs.errors import Fault, JobError, too_large
from pinhole.jobs.sources import LARGEST_FILE, Content, Stream, stamp

BATCH_ROWS = 64  # Rows read at a time; each may hold a file of 100 kB.


def parquet_source(path: Path, column: str | None) -> Stream:
    """The images of a Parquet file, in its order.

    Args:
        path: the file.
        column: which column holds the images; None takes the only column that can, or the column
            called ``image``.

    Raises:
        JobError: the file is damaged, or it isn't clear which column holds the images.
    """
    try:
        # pyarrow would take a name such as run:1.parquet for a URI, so it is given an open file.
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path} can't be read as a Parquet file") from error
    image = choose_column(path, schema, column)
    named = "path" if "path" in schema.names else None
    digest = sha256(f"parquet {stamp(path)} {image}".encode()).hexdigest()
    return Stream(count, digest, lambda start: rows(path, image, named, start))


def choose_column(path: Path, schema: Any, wanted: str | None) -> str:
    """The column that holds the images.

    Raises:
        JobError: there is no such column, or there are several and none is called ``image``.
    """
    fit = [field.name for field in schema if holds_files(field.type)]
    if wanted in fit:
        return str(wanted)
    if wanted is not None:
        raise JobError(
            f"{path} has no column {wanted} of image files; it has {', '.join(fit) or 'none'}"
        )
    if len(fit) == 1 or "image" in fit:
        return "image" if "image" in fit else str(fit[0])
    raise JobError(
        f"{path} has {len(fit)} columns that may hold image files ({', '.join(fit)}): "
        "say which with --column"
        if fit
        else f"{path} has no column of image files"
    )


def holds_files(kind: Any) -> bool:
    """Whether a column of this Arrow type may hold files."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and holds_files(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def rows(path: Path, image: str, named: str | None, start: int) -> Iterator[tuple[str, Content]]:
    """Yield (name, file) of every row from ``start`` on; row groups before it aren't read.

    Raises:
        JobError: the file is damaged.
    """
    columns = [image, named] if named else [image]
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            number, groups = 0, list[int]()
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if number + size <= start:
                    number += size
                else:
                    groups = list(range(group, file.num_row_groups))
                    break
            for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns):
                for row in batch.to_pylist():
                    if number >= start:
                        yield name_of(row, image, named, number), file_of(row[image])
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path} can't be read as a Parquet file") from error


def name_of(row: dict[str, Any], image: str, named: str | None, number: int) -> str:
    """The name of a row's image: the row's path, or the image's path, or the row's number."""
    if named and row[named]:
        return str(row[named])
    value = row[image]
    return str(value.get("path") or number) if isinstance(value, dict) else str(number)


def file_of(value: Any) -> Content:
    """The file in a cell, or why there is none."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        return Fault("Unreadable", "can't be read: the cell is empty")
    return too_large(len(data), LARGEST_FILE) if len(data) > LARGEST_FILE else bytes(data)
