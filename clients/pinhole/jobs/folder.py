"""A job's folder: its shards, a _job.json that says what they are, and a lock."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pinhole
from pinhole.jobs.errors import JobError
from pinhole.jobs.shards import Identity, Totals, is_shard, shard_totals, write_whole

try:
    import fcntl
except ImportError:  # Windows, where two jobs on one folder go unnoticed.
    fcntl = None  # type: ignore[assignment]

# pandas, pyarrow and Spark, given a folder, pass over names that begin with _ or a dot.
JOB = "_job.json"
FORMER_JOB = "job.json"  # Its name in older folders, which get the new name when they go on.
LOCK = ".lock"

# Key of _job.json that may not change between two runs → how an error explains the change.
CHANGES = {
    "source_digest": "the source, or its list of inputs, has changed",
    "model_digest": "another model",
    "precision": "another precision",
    "score": "with --score, or without",
    "shard_rows": "shards of another size",
}


@dataclass(frozen=True)
class Todo:
    """What a run has to do.

    Attributes:
        missing: numbers of the shards to make.
        retried: numbers of the shards whose rows with errors are embedded again.
        rows: the most inputs that the run goes through.
    """

    missing: list[int]
    retried: list[int]
    rows: int

    @property
    def shards(self) -> list[tuple[int, bool]]:
        """(number, whether only its failed rows are embedded again) in growing order."""
        missing = [(shard, False) for shard in self.missing]
        return sorted(missing + [(shard, True) for shard in self.retried])


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

    def todo(self, identity: Identity, retry: bool) -> Todo:
        """What is left of the job, rows with errors included if ``retry``."""
        rows = identity.inputs - self.totals.rows + (self.totals.failed if retry else 0)
        return Todo(self.missing, self.failing if retry else [], rows)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other jobs out of it; the lock ends with the process at the latest.

    Raises:
        JobError: another job is at work there, or the folder can't be made.
    """
    try:
        handle = lock(folder)
    except OSError as error:
        raise JobError(f"{folder} can't be used: {error.strerror}") from error
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def lock(folder: Path) -> int | None:
    """Make the folder and lock it; returns the locked file's descriptor, None without locks.

    Raises:
        JobError: another process holds the lock.
        OSError: the folder can't be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        return None
    while (handle := try_lock(folder)) is None:
        folder.mkdir(parents=True, exist_ok=True)
    return handle


def try_lock(folder: Path) -> int | None:
    """The locked file's descriptor; None if another job has removed the folder meanwhile.

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
    except BlockingIOError as error:
        os.close(handle)
        raise JobError(f"another job is at work in {folder}") from error
    os.close(handle)
    return None


def begin(folder: Path, identity: Identity, overwrite: bool) -> None:
    """Take the folder for this job, unless it is this job's already.

    Raises:
        JobError: it holds something else, and not ``overwrite``.
    """
    if has_to_give_way(folder, identity, overwrite):
        remove_job(folder)
    for partial in filter(is_partial, folder.iterdir()):
        partial.unlink()
    if has_job(folder):
        job_file(folder).replace(folder / JOB)
    else:
        write_job(folder, {"state": "running", **describe(identity)})


def has_to_give_way(folder: Path, identity: Identity, overwrite: bool) -> bool:
    """Whether the folder holds something else than this job, which the user wants replaced.

    Raises:
        JobError: it holds something else, and not ``overwrite``.
    """
    try:
        check(folder, identity)
    except JobError:
        if not overwrite:
            raise
        return True
    return False


def remove_job(folder: Path) -> None:
    """Remove the files that a job writes; any other file stays."""
    for path in filter(is_shard, folder.iterdir()):
        path.unlink()
    job_file(folder).unlink(missing_ok=True)


def check(folder: Path, identity: Identity) -> None:
    """Raise JobError unless the folder is this job's, or empty, or not there."""
    if not has_job(folder):
        return check_foreign(folder)
    found = read_job(folder)
    for key, value in describe(identity).items():
        if key in CHANGES and found.get(key) != value:
            raise JobError(
                f"{folder} holds another job: {CHANGES[key]} ({key} was {found.get(key)}, now "
                f"{value}); name another OUT, or replace that job's rows with --overwrite"
            )
    return None


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
    return job_file(folder).exists()


def job_file(folder: Path) -> Path:
    """The file that says what a job is, under the name that it has in this folder."""
    former = folder / FORMER_JOB
    if (folder / JOB).exists() or not former.exists():
        return folder / JOB
    # A file called job.json may be anybody's.
    return former if "source_digest" in former.read_text("utf-8", "replace") else folder / JOB


def is_partial(path: Path) -> bool:
    """Whether this is a file that a killed job has left half-written."""
    return re.fullmatch(r"\..+\.[0-9a-f]{32}\.partial", path.name) is not None


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
    path = job_file(folder)
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"{path} can't be read") from error
    return found


def write_job(folder: Path, fields: dict[str, Any]) -> None:
    """Write _job.json."""
    text = json.dumps(fields, indent=2) + "\n"
    write_whole(folder / JOB, lambda file: file.write(text.encode()))


def progress(folder: Path, identity: Identity) -> Progress:
    """Read the footer of every shard.

    Raises:
        JobError: a shard is another job's.
    """
    rows, failures = 0, Counter[str]()
    missing, failing = [], []
    for shard in range(identity.shards):
        totals = shard_totals(folder, identity, shard)
        if totals is None:
            missing.append(shard)
            continue
        rows += totals.rows
        failures += totals.failures
        if totals.failed:
            failing.append(shard)
    return Progress(Totals(rows, failures), missing, failing)


def nothing_done(identity: Identity) -> Progress:
    """The progress of a job that hasn't begun."""
    return Progress(Totals(0, Counter()), list(range(identity.shards)), [])
