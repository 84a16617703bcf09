"""A job's folder: its shards, a _job.json that says what they are, and a lock.

When the list of inputs has changed, the shards are put aside under hidden names, and new shards are
made, which take the rows over that are still right.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pinhole
from pinhole.jobs.errors import JobError
from pinhole.jobs.shards import (
    UNSUPPORTED,
    Identity,
    Totals,
    is_shard,
    shard_path,
    shard_totals,
    write_durably,
)

try:
    import fcntl
except ImportError:  # Windows, where two jobs on one folder go unnoticed.
    fcntl = None  # type: ignore[assignment]

# pandas, pyarrow and Spark, given a folder, pass over names that begin with _ or a dot.
JOB = "_job.json"
LOCK = ".lock"

# The keys of _job.json by which a run knows whether the shards beside it are its own.
OWN = ("source_digest", "inputs", "model_digest", "precision", "score", "shard_rows")


@dataclass(frozen=True)
class Progress:
    """How far a job has come.

    Attributes:
        totals: of the finished shards.
        missing: numbers of the shards that aren't there.
        failing: numbers of the finished shards with errors in them.
    """

    totals: Totals
    missing: list[int]
    failing: list[int]

    def left(self, retry: bool) -> list[int]:
        """Numbers of the shards to make, with ``retry`` of those with errors too; growing."""
        return sorted(self.missing + (self.failing if retry else []))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other jobs out of it; the lock ends with the process at the latest.

    Raises:
        JobError: another job is at work there, or the folder can't be made.
    """
    handle: int | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while fcntl and (handle := try_lock(folder)) is None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{folder} can't be used: {error.strerror}") from error
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def try_lock(folder: Path) -> int | None:
    """The locked file's descriptor; None if another job has removed the folder meanwhile.

    On a file system without locks, two jobs on one folder go unnoticed.

    Raises:
        JobError: another process holds the lock.
    """
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A job that finished between our open and our flock has removed the file that we locked.
        if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
            return handle
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return handle
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise JobError(f"another job is at work in {folder}") from error
        raise
    os.close(handle)
    return None


def begin(folder: Path, identity: Identity) -> None:
    """Take the folder for this job, and put shards aside that aren't this job's."""
    for partial in filter(is_partial, list(folder.iterdir())):
        partial.unlink()
    if not is_own(folder, identity):
        for path in filter(is_shard, list(folder.iterdir())):
            path.replace(former_path(folder, path.name))
        write_job(folder, {"state": "running", **describe(identity)})


def is_own(folder: Path, identity: Identity) -> bool:
    """Whether the folder's shards are this job's: of its list of inputs, model and size."""
    try:
        found = read_job(folder)
    except JobError:
        return False
    return all(found.get(key) == value for key, value in describe(identity).items() if key in OWN)


def former_path(folder: Path, name: str) -> Path:
    """A new, hidden name for a shard that is put aside."""
    return folder / f".{name}.{uuid4().hex}.former"


def former_shards(folder: Path) -> list[Path]:
    """The shards that were put aside, and those that an interrupted run has left unfinished."""
    return [
        path
        for path in folder.glob(".shard-*.former")
        if re.fullmatch(r"\.shard-\d{6,}\.parquet\.[0-9a-f]{32}\.former", path.name)
    ]


def own_files(folder: Path) -> list[Path]:
    """Every file in the folder that a job has written, the lock last: it keeps other jobs out."""
    shards = [path for path in folder.iterdir() if is_shard(path) or is_partial(path)]
    known = [folder / name for name in (JOB, LOCK) if (folder / name).exists()]
    return shards + former_shards(folder) + known


def check_foreign(folder: Path) -> None:
    """Raise JobError if the folder holds files, and no job."""
    if has_job(folder) or not folder.exists():
        return
    if any(path.name != LOCK and not is_partial(path) for path in folder.iterdir()):
        raise JobError(
            f"{folder} holds other files and no {JOB}: name another folder, or write among them "
            "with --overwrite"
        )


def has_job(folder: Path) -> bool:
    """Whether the folder is a job's."""
    return (folder / JOB).exists()


def is_partial(path: Path) -> bool:
    """Whether this is a file that a killed job has left half-written."""
    return re.fullmatch(r"\.(.+\.)?[0-9a-f]{32}\.partial", path.name) is not None


def describe(identity: Identity) -> dict[str, Any]:
    """The identity as _job.json has it."""
    return {
        "source": identity.source,
        "source_digest": identity.list_digest,
        "inputs": identity.inputs,
        "model_digest": identity.model.digest,
        "precision": identity.model.precision,
        "embedding_width": identity.model.width,
        "score": identity.score,
        "shard_rows": identity.shard_rows,
        "tool_version": pinhole.__version__,
    }


def read_job(folder: Path) -> dict[str, Any]:
    """The content of _job.json.

    Raises:
        JobError: it is damaged.
    """
    path = folder / JOB
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"{path} can't be read") from error
    return found


def write_job(folder: Path, fields: dict[str, Any]) -> None:
    """Write _job.json."""
    text = json.dumps(fields, indent=2) + "\n"
    write_durably(folder / JOB, lambda file: file.write(text.encode()))


def progress(folder: Path, identity: Identity) -> Progress:
    """Read the footer of every shard, if the shards are this job's.

    Raises:
        JobError: a shard is another job's.
    """
    rows, failures = 0, Counter[str]()
    missing, failing = [], []
    own = is_own(folder, identity)
    for shard in range(identity.shards):
        totals = shard_totals(shard_path(folder, shard), identity, shard) if own else None
        if totals is None:
            missing.append(shard)
            continue
        rows += totals.rows
        failures += totals.failures
        if totals.failed:
            failing.append(shard)
    return Progress(Totals(rows, failures), missing, failing)
