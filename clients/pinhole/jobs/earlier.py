"""Earlier results: the rows that a job takes over instead of embedding their images again.

They are in OUT, in the folder of its shards, and in what --reuse names.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.folder import check_foreign, former_shards, has_job, read_job
from pinhole.jobs.rows import Answer, Row
from pinhole.jobs.shards import Identity, is_shard, schema_of, told
from pinhole.jobs.sinks import Sink
from pinhole.outputs import local_path

BATCH_ROWS = 4_096  # Read at a time.

# What an error says of a result whose rows can't be taken over, by what differs.
DIFFERENCES = {
    "model_digest": "another model",
    "precision": "another precision",
    "score": "with --score, or without, or another --outlier-percentile",
}


def put_aside(sink: Sink) -> list[Path]:
    """OUT itself if it is a Parquet file, and the shards in its folder that were put aside."""
    return [sink.path] * (sink.tells_rows and sink.path.is_file()) + former_shards(sink.folder)


def finished(sink: Sink) -> list[Path]:
    """The shards in OUT's folder."""
    return [path for path in sink.folder.glob("shard-*.parquet") if is_shard(path)]


def check_earlier(sink: Sink, identity: Identity) -> None:
    """Refuse an OUT with rows of another model, or whose folder has other files than a job's.

    Raises:
        JobError: the reason.
    """
    check_foreign(sink.folder)
    in_folder = read_job(sink.folder) if has_job(sink.folder) else {}
    for result in (in_folder, description(sink.path) if sink.tells_rows else {}):
        if change := difference(result, identity):
            raise JobError(
                f"{sink.path} holds another job: {change}; name another OUT, or replace that job's "
                "rows with --overwrite"
            )


def reused(given: str, identity: Identity) -> list[Path]:
    """The Parquet files of the result that --reuse names.

    Raises:
        JobError: there is no such result, or its rows are of another model.
    """
    path = local_path(given)
    sink = Sink(path.absolute(), one_file=not path.is_dir())
    paths = put_aside(sink) + finished(sink)
    found = [description(path) for path in paths]
    if not any(found):
        raise JobError(
            f"--reuse: {given} is no job's result from which rows can be taken: a folder of shards "
            "or a .parquet file"
        )
    for result in found:
        if change := difference(result, identity):
            raise JobError(f"--reuse: the rows of {given} can't be taken over: {change}")
    return paths


def description(path: Path) -> dict[str, Any]:
    """What a Parquet file says of its rows; empty if that isn't what a job writes."""
    found = told(schema_of(path))
    try:
        score = float(found.get("outlier_percentile", 0))
    except ValueError:
        return {}
    return {**found, "score": score} if "model_digest" in found else {}


def difference(result: dict[str, Any], identity: Identity) -> str:
    """Why a result's rows aren't the job's; "" if they are, or if nothing is known of them."""
    wanted = {
        "model_digest": identity.model.digest,
        "precision": identity.model.precision,
        "score": identity.score,
    }
    for key, change in DIFFERENCES.items():
        if result and result.get(key) != wanted[key]:
            return f"{change} ({key} was {result.get(key)}, now {wanted[key]})"
    return ""


def earlier_rows(path: Path, identity: Identity) -> Iterator[Row]:
    """Yield the rows of an earlier result that the job may take over: of all files that were read.

    Args:
        path: of a Parquet file. A damaged file, and one of another model, has no such rows.
        identity: of the job. The rows of another source lose their stamps: its files may have the
            same names, sizes and times.
    """
    result = description(path)
    if not result or difference(result, identity):
        return
    # On Ray, a source has an absolute name.
    same = absolute(result.get("source", "")) == absolute(identity.source)
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            if not file.schema_arrow.equals(identity.schema):
                return  # Another program has written the file anew.
            for batch in file.iter_batches(BATCH_ROWS):
                yield from rows_of(batch, identity, same)
    except (pa.ArrowException, OSError):
        return


def absolute(source: str) -> str:
    """A source's name from the root on; two names of one URL stay alike."""
    return os.path.abspath(source)  # noqa: PTH100 - a pattern is no path


def rows_of(batch: Any, identity: Identity, same_source: bool) -> Iterator[Row]:
    """Yield the rows of a pyarrow.RecordBatch that earlier_rows yields."""
    lists, width = batch["embedding"], identity.model.width
    numbers = lists.values.slice(lists.offset * width, len(lists) * width)
    embeddings = numbers.to_numpy(zero_copy_only=False).reshape(-1, width)
    columns = [batch[name].to_pylist() for name in batch.schema.names if name != "embedding"]
    for embedding, path, digest, error, reason, stamp, *scores in zip(
        embeddings, *columns, strict=True
    ):
        if digest is None:
            continue  # The file wasn't read.
        result = Answer(embedding, *scores) if error is None else Fault(reason, error)
        yield Row(-1, path, digest, result, stamp if same_source and stamp else "")
