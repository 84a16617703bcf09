"""A job's folder: its shards, a job.json that says what they are, and a lock."""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pinhole.jobs.errors import JobError
from pinhole.jobs.shards import Identity, Totals, shard_totals, write_whole

JOB = "job.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Progress:
    """How far a job has come.

    Attributes:
        totals: of the shards that are there.
        missing: shards that aren't.
        failing: shards with errors in them.
    """

    totals: Totals
    missing: list[int]
    failing: list[int]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other jobs out of it; the system forgets the lock with the process.

    Raises:
        JobError: another job is at work there, or the folder can't be made.
    """
    handle = -1
    try:
        while handle < 0:
            folder.mkdir(parents=True, exist_ok=True)
            handle = try_lock(folder)
    except OSError as error:
        raise JobError(f"{folder} can't be used: {error.strerror}") from error
    try:
        yield
    finally:
        os.close(handle)


def try_lock(folder: Path) -> int:
    """The locked file's handle; -1 if the folder was removed meanwhile.

    Raises:
        JobError: another process has it.
    """
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
            return handle
    except BlockingIOError as error:
        os.close(handle)
        raise JobError(f"another job is at work in {folder}") from error
    os.close(handle)
    return -1


def begin(folder: Path, identity: Identity) -> None:
    """Take the folder for this job, or find that it is this job's already.

    Raises:
        JobError: it holds something else.
    """
    check(folder, identity)
    for left in filter(is_left, folder.iterdir()):
        left.unlink()
    if not (folder / JOB).exists():
        write_job(folder, {"state": "running", **describe(identity)})


def check(folder: Path, identity: Identity) -> None:
    """Raise JobError unless the folder is empty, not there, or this job's."""
    if not (folder / JOB).exists():
        others = folder.iterdir() if folder.exists() else ()
        if any(path.name != LOCK and not is_left(path) for path in others):
            raise JobError(f"{folder} holds other files and no {JOB}: name another folder")
        return
    found = read_job(folder)
    for key, value in describe(identity).items():
        if key in WHY and found.get(key) != value:
            raise JobError(
                f"{folder} holds another job: {WHY[key]} ({key} was {found.get(key)}, now "
                f"{value}); name another folder, or delete that one"
            )


def is_left(path: Path) -> bool:
    """Whether a job's process that was killed has left this file half-written."""
    return path.name.startswith((".shard-", f".{JOB}.")) and path.name.endswith(".partial")


WHY = {
    "source_digest": "the source, or its list of inputs, has changed",
    "model_digest": "another model",
    "precision": "another precision",
    "score": "with --score, or without",
    "shard_rows": "shards of another size",
}


def describe(identity: Identity) -> dict[str, Any]:
    """The identity as job.json has it."""
    return {
        "source": identity.source,
        "source_digest": identity.list_digest,
        "inputs": identity.inputs,
        "model_digest": identity.model.digest,
        "precision": identity.model.precision,
        "embedding_width": identity.model.width,
        "score": identity.score,
        "shard_rows": identity.shard_rows,
        "tool_version": version("pinhole"),
    }


def read_job(folder: Path) -> dict[str, Any]:
    """job.json.

    Raises:
        JobError: it is damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / JOB).read_text())
    except (OSError, ValueError) as error:
        raise JobError(f"{folder / JOB} can't be read") from error
    return found


def write_job(folder: Path, fields: dict[str, Any]) -> None:
    """Write job.json."""
    text = json.dumps(fields, indent=2) + "\n"
    write_whole(folder / JOB, lambda file: file.write(text.encode()))


def progress(folder: Path, identity: Identity) -> Progress:
    """Look at every shard's last bytes.

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
