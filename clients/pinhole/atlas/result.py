"""A job's result, read a batch at a time: a folder of shards, a .parquet file or a .csv file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pinhole.jobs.folder import JOB
from pinhole.jobs.pictures import to_image_spec
from pinhole.jobs.shards import SCORES, is_shard, told
from serve.bundle.errors import first_line
from serve.bundle.manifest import ImageSpec

BATCH_ROWS = 1 << 16
CSV_BLOCK_BYTES = 8 << 20

# The types of a CSV file's columns; of one that is empty at first, pyarrow would guess wrongly.
CSV_TYPES = {
    "path": pa.string(),
    "sha256": pa.string(),
    "error": pa.string(),
    "mse": pa.float32(),
    "percentile": pa.float32(),
    "outlier": pa.bool_(),
}


class UnfitResult(Exception):
    """What was named isn't a job's result, or lacks what is asked for; the message is one line."""


@dataclass(frozen=True)
class Result:
    """The rows of a job, in the order of its source.

    Attributes:
        path: the file or folder, as the user named it.
        files: that hold the rows.
        columns: that the rows have.
        metadata: what the job wrote of itself, e.g. ``source`` and ``model_digest``; a .csv file
            has none.
        inputs: of the whole job, which may not be finished; None if the result doesn't say.
    """

    path: Path
    files: list[Path]
    columns: frozenset[str]
    metadata: Mapping[str, str]
    inputs: int | None = None

    @property
    def source(self) -> str | None:
        """What the job read, as its user named it; None if the result doesn't say."""
        return self.metadata.get("source")

    @property
    def image(self) -> ImageSpec | None:
        """The pictures that the model takes; None if the result doesn't say."""
        try:
            return to_image_spec(json.loads(self.metadata.get("image", "null")))
        except ValueError:
            return None

    @property
    def scored(self) -> bool:
        """Whether the rows have the columns of --score."""
        return self.columns.issuperset(SCORES)

    def batches(self, *wanted: str) -> Iterator[Any]:
        """Yield pyarrow.Tables of some rows each, with the wanted columns that the result has.

        ``row`` is added to them: each row's place in the result, from 0.

        Raises:
            UnfitResult: a file is damaged.
        """
        names, first = [name for name in wanted if name in self.columns], 0
        for file in self.files:
            read = read_csv if is_csv(file) else read_parquet
            try:
                for table in read(file, names):
                    rows = pa.array(np.arange(first, first + len(table)))
                    yield table.append_column("row", rows)
                    first += len(table)
            except pa.ArrowException as error:
                raise UnfitResult(f"{file} is damaged: {first_line(error)}") from error


def open_result(path: Path) -> Result:
    """Find out what a result consists of.

    Raises:
        UnfitResult: it is no result of a job.
        OSError: it isn't there, or can't be opened.
    """
    files = shards(path) if path.is_dir() else [path]
    try:
        columns, metadata = csv_head(path) if is_csv(path) else parquet_head(files[0])
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise not_a_result(path) from error
    if not {"path", "embedding"} <= columns:
        raise not_a_result(path)
    return Result(path, files, columns, metadata, inputs_of(path))


def not_a_result(path: Path) -> UnfitResult:
    """The error for a file of another kind."""
    arrays = "; a .npy file has no names" if path.suffix.lower() == ".npy" else ""
    return UnfitResult(f"{path} holds no embeddings: it is not a result of pinhole embed{arrays}")


def shards(folder: Path) -> list[Path]:
    """A folder's shards, by their numbers.

    Raises:
        UnfitResult: it has none.
    """
    found = sorted(filter(is_shard, folder.iterdir()), key=lambda path: (len(path.name), path.name))
    if not found:
        raise UnfitResult(f"{folder} holds no shards of pinhole embed (shard-000000.parquet, ...)")
    return found


def inputs_of(folder: Path) -> int | None:
    """How many inputs a job's folder says that the job has."""
    try:
        return int(json.loads((folder / JOB).read_text("utf-8"))["inputs"])
    except (OSError, LookupError, TypeError, ValueError):
        return None


def is_csv(path: Path) -> bool:
    """Whether a file is read as CSV."""
    return path.suffix.lower() == ".csv"


def parquet_head(file: Path) -> tuple[frozenset[str], dict[str, str]]:
    """The columns of a Parquet file, and what the job has written of itself.

    pyarrow would take a name such as run:1.parquet for a URI, so it is given open files.
    """
    with file.open("rb") as opened:
        schema = pq.read_schema(opened)
    return frozenset(schema.names), told(schema)


def read_parquet(file: Path, names: list[str]) -> Iterator[Any]:
    """Yield the rows of a Parquet file. Without pre_buffer, a row group isn't held whole."""
    with file.open("rb") as opened, pq.ParquetFile(opened, pre_buffer=False) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS, columns=names):
            yield pa.Table.from_batches([batch])


def csv_head(file: Path) -> tuple[frozenset[str], dict[str, str]]:
    """The columns of a CSV file, with embedding_0, embedding_1, ... as ``embedding``."""
    return frozenset("embedding" if is_number(name) else name for name in csv_names(file)), {}


def csv_names(file: Path) -> list[str]:
    """The columns that a CSV file's first line names, without what no job writes."""
    with file.open("rb") as opened:
        line = opened.readline(1 << 16).decode()
    names = [name.strip('"') for name in line.strip().split(",")]
    return [name for name in names if name in CSV_TYPES or is_number(name)]


def is_number(name: str) -> bool:
    """Whether a column of a CSV file is one number of the embeddings."""
    return name.startswith("embedding_")


def read_csv(file: Path, names: list[str]) -> Iterator[Any]:
    """Yield the rows of a CSV file, with the embedding's numbers as one column."""
    numbers = [name for name in csv_names(file) if is_number(name)]
    types = {**CSV_TYPES, **dict.fromkeys(numbers, pa.float32())}
    options = pyarrow.csv.ConvertOptions(
        column_types=types,
        include_columns=[name for name in names if name != "embedding"] + numbers,
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with (
        file.open("rb") as opened,
        pyarrow.csv.open_csv(
            opened, pyarrow.csv.ReadOptions(block_size=CSV_BLOCK_BYTES), parse, options
        ) as reader,
    ):
        for batch in reader:
            table = pa.Table.from_batches([batch])
            rows = np.column_stack([table[name].to_numpy() for name in numbers])
            embeddings = pa.FixedSizeListArray.from_arrays(
                pa.array(rows.ravel()), len(numbers), mask=pa.array(np.isnan(rows[:, 0]))
            )
            yield table.drop_columns(numbers).append_column("embedding", embeddings)


def vectors(table: Any) -> NDArray[np.float32]:
    """The embeddings of a table whose rows all have one: float32[N, D].

    Raises:
        UnfitResult: they aren't numbers, or not equally many in each row.
    """
    try:
        numbers = np.asarray(pc.list_flatten(table["embedding"]), np.float32)
        return numbers.reshape(len(table), -1)
    except (pa.ArrowException, ValueError) as error:
        raise UnfitResult("the column embedding doesn't hold lists of equal length") from error
