"""Shards: Parquet files with a fixed number of rows each, whose metadata say what they are.

A shard is complete or it isn't there. Shard 3 holds the inputs from number 3 × shard_rows on, so
the shards that are there tell which inputs are done.
"""

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import pinhole
from pinhole import outputs
from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.rows import Answer, Row
from pinhole.jobs.runners import Model

SCORES = ("mse", "percentile", "outlier")  # The columns of a job with --score.
COLUMNS = ("path", "sha256", "embedding", "error", "reason", "stamp", *SCORES)
# What file systems answer that have no such call: SMB and some FUSE ones flush no folder, Lustre
# and NFS may be mounted without locks.
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)

PREFIX = "pinhole."  # Every key that pinhole adds to the metadata begins so.


@dataclass(frozen=True)
class Identity:
    """What may not change between two runs of a job, or their rows would not belong together.

    Attributes:
        source: as the user named it, in UTF-8.
        inputs: number of inputs in the source.
        list_digest: sha256 of the source's list of inputs.
        model: embeds all inputs.
        score: the percentile above which an image is an outlier; 0 in a job without --score.
        shard_rows: number of inputs in a shard.
        column: of the source that holds the images, as the user named it.
    """

    source: str
    inputs: int
    list_digest: str
    model: Model
    score: float
    shard_rows: int
    column: str | None = None

    @property
    def shards(self) -> int:
        """Number of shards of the finished job."""
        return -(-self.inputs // self.shard_rows)

    def numbers(self, shard: int) -> range:
        """The numbers of a shard's inputs."""
        return range(shard * self.shard_rows, min(self.inputs, (shard + 1) * self.shard_rows))

    @property
    def schema(self) -> Any:
        """The columns, as a pyarrow.Schema."""
        fields = [
            ("path", pa.string()),
            ("sha256", pa.string()),
            ("embedding", pa.list_(pa.float32(), self.model.width)),
            ("error", pa.string()),
            ("reason", pa.string()),
            ("stamp", pa.string()),
        ]
        scores = zip(SCORES, (pa.float32(), pa.float32(), pa.bool_()), strict=True)
        return pa.schema(fields + (list(scores) if self.score else []))


@dataclass(frozen=True)
class Totals:
    """What became of some inputs.

    Attributes:
        rows: number of inputs.
        failures: reason → number of inputs.
    """

    rows: int
    failures: Counter[str]

    @property
    def failed(self) -> int:
        """Number of rows that have an error."""
        return sum(self.failures.values())

    @property
    def embedded(self) -> int:
        """Number of rows that have an embedding."""
        return self.rows - self.failed


def use_little_memory() -> None:
    """Have pyarrow allocate as Python does: its own allocator keeps 30 MB more, and they grow."""
    pa.set_memory_pool(pa.system_memory_pool())


def import_pandas() -> None:
    """Import pandas, where there is one, as pyarrow does with its first array.

    A job imports pandas before it can be interrupted: an interruption that meets an import may be
    lost or become another error, and an interrupted job, which writes a last file, is to end soon.
    """
    pa.array([""])


def shard_path(folder: Path, shard: int) -> Path:
    """The file of a shard."""
    return folder / f"shard-{shard:06}.parquet"


def is_shard(path: Path) -> bool:
    """Whether a file has a shard's name."""
    return re.fullmatch(r"shard-\d{6,}\.parquet", path.name) is not None


def write_shard(path: Path, identity: Identity, shard: int, rows: Sequence[Row]) -> None:
    """Write a shard, or replace it.

    Raises:
        JobError: it can't be written, for lack of space for example.
    """
    table = to_table(identity, rows).replace_schema_metadata(metadata(identity, shard, rows))
    write_durably(path, lambda file: pq.write_table(table, file))


def to_table(identity: Identity, rows: Sequence[Row]) -> Any:
    """Rows as a pyarrow.Table."""
    blank = Answer(np.zeros(identity.model.width, np.float32))
    answers = [blank if isinstance(row.result, Fault) else row.result for row in rows]
    faults = [row.result if isinstance(row.result, Fault) else None for row in rows]
    columns = {
        "path": pa.array([row.path for row in rows], pa.string()),
        "sha256": pa.array([row.sha256 for row in rows], pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(
            np.concatenate([answer.embedding for answer in answers], dtype=np.float32),
            type=identity.schema.field("embedding").type,
            mask=pa.array([fault is not None for fault in faults]),
        ),
        "error": pa.array([fault and fault.message for fault in faults], pa.string()),
        "reason": pa.array([fault and fault.reason for fault in faults], pa.string()),
        "stamp": pa.array([row.stamp or None for row in rows], pa.string()),
    }
    if identity.score:
        for name in SCORES:
            type_ = identity.schema.field(name).type
            columns[name] = pa.array([getattr(answer, name) for answer in answers], type_)
    return pa.table(columns, identity.schema)


def metadata(identity: Identity, shard: int, rows: Sequence[Row]) -> dict[str, str]:
    """The metadata of a shard: the job's, and the shard's own."""
    failures = Counter(row.result.reason for row in rows if isinstance(row.result, Fault))
    fields = {
        "shard": shard,
        "rows": len(rows),
        "embedded": len(rows) - sum(failures.values()),
        "failures": json.dumps(failures),
    }
    own = {PREFIX + key: str(value) for key, value in fields.items()}
    return {**job_metadata(identity), **own}


def job_metadata(identity: Identity) -> dict[str, str]:
    """The metadata that every file of a job's results has."""
    fields = {
        "source": identity.source,
        "source_digest": identity.list_digest,
        "model_digest": identity.model.digest,
        "precision": identity.model.precision,
        "tool_version": pinhole.__version__,
    }
    if identity.column:
        fields["column"] = identity.column
    if identity.score:
        fields["outlier_percentile"] = str(identity.score)
    if identity.model.image:
        fields["image"] = json.dumps(asdict(identity.model.image))
    return {PREFIX + key: value for key, value in fields.items()}


def schema_of(path: Path) -> Any:
    """A Parquet file's schema; empty if the file is damaged, or isn't there."""
    try:
        with path.open("rb") as file:  # pyarrow would take a name such as run:1/x for a URI.
            return pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return pa.schema([])


def told(schema: Any) -> dict[str, str]:
    """What a job has written of itself into a schema's metadata, by the names in _job.json."""
    found = [(key.decode(errors="replace"), text) for key, text in (schema.metadata or {}).items()]
    own = {key: text.decode(errors="replace") for key, text in found if key.startswith(PREFIX)}
    return {key.removeprefix(PREFIX): text for key, text in own.items()}


def shard_totals(path: Path, identity: Identity, shard: int) -> Totals | None:
    """What a shard holds; None if it isn't there, or is damaged and has to be made again.

    Raises:
        JobError: it is another job's.
    """
    schema = schema_of(path)
    if not schema.names:
        return None
    found, expected = told(schema), metadata(identity, shard, [])
    for key in ("source_digest", "model_digest", "precision", "shard"):
        if found.get(key) != expected[PREFIX + key]:
            raise JobError(f"{path} is another job's: its {key} differs")
    return Totals(int(found["rows"]), Counter(json.loads(found["failures"])))


def write_durably(
    path: Path, write: Callable[[IO[bytes]], object], folder: Path | None = None
) -> None:
    """Write a file as outputs.write_whole does, and flush it to the disk before it is renamed.

    Raises:
        JobError: there is no room, or no permission; a file that was at ``path`` is untouched.
    """

    def write_through(file: IO[bytes]) -> None:
        write(file)
        file.flush()
        os.fsync(file.fileno())

    try:
        outputs.write_whole(path, write_through, folder)
        sync_folder(path.parent)
    except OSError as error:
        raise JobError(f"{path} can't be written: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk, where the file system can."""
    if os.name == "nt":  # Windows opens no folders.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)
