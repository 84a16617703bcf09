"""Where a job's rows end up: a folder of shards, or one file that is assembled from shards.

The shards of a one-file OUT lie in a hidden folder beside it, until no row has an error.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.lib import format as npy

from pinhole.jobs.errors import JobError
from pinhole.jobs.shards import Identity, job_metadata, shard_path, write_whole

Assemble = Callable[[IO[bytes], Path, Identity], None]


def is_file(out: Path) -> bool:
    """Whether OUT is to be one file: its suffix says so, and it isn't a folder already."""
    return out.suffix.lower() in FORMATS and not out.is_dir()


def job_folder(out: Path) -> Path:
    """The folder that the shards of OUT lie in."""
    return out.with_name(f".{out.name}.job") if is_file(out) else out


def check_sink(out: Path, score: bool) -> None:
    """Raise JobError unless OUT can hold what is asked for."""
    if score and is_file(out) and out.suffix.lower() == ".npy":
        raise JobError("--score adds a column, and .npy has none: write .parquet, .csv or a folder")
    if out.exists() and not out.is_dir() and not is_file(out):
        raise JobError(f"{out} is a file; name a folder, or a file in {', '.join(FORMATS)}")


def assemble(out: Path, identity: Identity) -> None:
    """Make a one-file OUT from its shards; it appears under its name only when it is complete.

    Raises:
        JobError: it can't be written.
    """
    folder = job_folder(out)
    write = FORMATS[out.suffix.lower()]
    write_whole(out, lambda file: write(file, folder, identity))


def clear(out: Path) -> None:
    """Remove the hidden folder of a one-file OUT."""
    shutil.rmtree(job_folder(out))


def tables(folder: Path, identity: Identity) -> Iterator[Any]:
    """Yield the shards' rows, a pyarrow.Table each."""
    for shard in range(identity.shards):
        yield pq.read_table(shard_path(folder, shard)).replace_schema_metadata(None)


def write_parquet(file: IO[bytes], folder: Path, identity: Identity) -> None:
    """One Parquet file, a row group for each shard."""
    schema = identity.schema.with_metadata(job_metadata(identity))
    with pq.ParquetWriter(file, schema) as writer:
        for table in tables(folder, identity):
            writer.write_table(table.cast(schema))


def write_csv(file: IO[bytes], folder: Path, identity: Identity) -> None:
    """One CSV file: path, sha256, embedding_0, embedding_1, ..., error and, if asked for, mse."""
    writer = None
    for table in tables(folder, identity):
        flat = flatten(table, identity.model.width)
        writer = writer or pyarrow.csv.CSVWriter(file, flat.schema)
        writer.write_table(flat)
    if writer:
        writer.close()


def flatten(table: Any, width: int) -> Any:
    """A table in which each number of the embedding is a column of its own."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        if name != "embedding":
            columns[name] = table[name]
            continue
        numbers = embeddings_of(table, width)
        for index in range(width):
            columns[f"embedding_{index}"] = pa.array(numbers[:, index], from_pandas=True)
    return pa.table(columns)


def embeddings_of(table: Any, width: int) -> Any:
    """A table's embeddings: float32[N, D], NaN in rows without an embedding."""
    values = table["embedding"].combine_chunks()
    numbers = values.values.to_numpy(zero_copy_only=False).reshape(-1, width).copy()
    numbers[values.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return numbers


def write_npy(file: IO[bytes], folder: Path, identity: Identity) -> None:
    """One array float32[N, D], in the source's order; NaN in rows without an embedding."""
    header = {
        "descr": npy.dtype_to_descr(np.dtype(np.float32)),
        "fortran_order": False,
        "shape": (identity.inputs, identity.model.width),
    }
    npy.write_array_header_1_0(file, header)
    for table in tables(folder, identity):
        file.write(embeddings_of(table, identity.model.width).tobytes())


FORMATS: dict[str, Assemble] = {".parquet": write_parquet, ".npy": write_npy, ".csv": write_csv}
