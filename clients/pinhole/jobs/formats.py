"""The formats of a one-file OUT: each is written from the job's shards, one shard at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.lib import format as npy

from pinhole.jobs.shards import Identity, job_metadata, shard_path

Write = Callable[[IO[bytes], Path, Identity], None]


def tables(folder: Path, identity: Identity) -> Iterator[Any]:
    """Yield the shards' rows, a pyarrow.Table each."""
    for shard in range(identity.shards):
        with shard_path(folder, shard).open("rb") as file:
            yield pq.read_table(file).replace_schema_metadata(None)


def write_parquet(file: IO[bytes], folder: Path, identity: Identity) -> None:
    """One Parquet file, a row group for each shard."""
    schema = identity.schema.with_metadata(job_metadata(identity))
    with pq.ParquetWriter(file, schema) as writer:
        for table in tables(folder, identity):
            writer.write_table(table.cast(schema))


def write_csv(file: IO[bytes], folder: Path, identity: Identity) -> None:
    """One CSV file: path, sha256, embedding_0, embedding_1, ... and a shard's other columns."""
    width = identity.model.width
    schema = flatten(identity.schema.empty_table(), width).schema
    with pyarrow.csv.CSVWriter(file, schema) as writer:
        for table in tables(folder, identity):
            writer.write_table(flatten(table, width))


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


FORMATS: dict[str, Write] = {".parquet": write_parquet, ".npy": write_npy, ".csv": write_csv}
