"""A job from beginning to end: what is there already, what is left, and the shards of that."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.folder import Progress, begin, describe, progress, read_job, write_job
from pinhole.jobs.known import Known
from pinhole.jobs.pipeline import embedded_rows
from pinhole.jobs.rows import Row
from pinhole.jobs.runners import Runner
from pinhole.jobs.shards import Identity, Totals, read_rows, write_shard
from pinhole.jobs.sources import Source

READERS = 4  # threads

OnRows = Callable[[int], None]  # called with each number of finished rows


@dataclass(frozen=True)
class Todo:
    """What a run has to do.

    Attributes:
        missing: shards to make.
        retried: shards to make again, of which only rows with errors are embedded.
        rows: how many inputs that is, at most.
    """

    missing: list[int]
    retried: list[int]
    rows: int


def plan(found: Progress, identity: Identity, retry: bool) -> Todo:
    """What is left of a job."""
    retried = found.failing if retry else []
    rows = identity.inputs - found.totals.rows + (found.totals.failed if retry else 0)
    return Todo(found.missing, retried, rows)


@dataclass(frozen=True)
class Done:
    """What a run has done.

    Attributes:
        totals: what the shards hold now.
        rows: inputs that this run has gone through.
        seconds: it took.
    """

    totals: Totals
    rows: int
    seconds: float


def run_job(
    source: Source,
    identity: Identity,
    runner: Runner,
    folder: Path,
    on_rows: OnRows,
    retry: bool = False,
    readers: int = READERS,
) -> Done:
    """Embed what is left of a source into the shards of a folder.

    Args:
        source: of images.
        identity: of the job.
        runner: embeds.
        folder: locked by the caller; may hold what an earlier run of this job has finished.
        on_rows: called as rows are embedded; the last of them may not be written yet.
        retry: embed rows again that have errors.
        readers: threads that read files.

    Raises:
        JobError: the folder is another job's, or can't be written to.
        PinholeError: the service has gone for too long.
    """

    def work(todo: Todo) -> None:
        """Make it here."""
        with Known() as known:
            remember(known, folder, identity, todo)
            make(source, identity, runner, folder, todo, known, on_rows, readers)

    return complete(identity, runner.name, folder, retry, on_rows, work)


def complete(
    identity: Identity,
    runner: str,
    folder: Path,
    retry: bool,
    on_rows: OnRows,
    work: Callable[[Todo], None],
) -> Done:
    """Find out what is to be done, have it done, and say so in job.json."""
    started = time.monotonic()
    begin(folder, identity)
    todo = plan(progress(folder, identity), identity, retry)
    if todo.rows:
        write_job(folder, {"state": "running", **describe(identity)})
    on_rows(identity.inputs - todo.rows)
    work(todo)
    list(folder.iterdir())  # or a network's file system may not know what other hosts wrote
    found = progress(folder, identity)
    if found.missing:
        raise JobError(
            f"{len(found.missing):,} of {identity.shards:,} shards are missing in {folder}; "
            "run the same command again to make them"
        )
    done = Done(found.totals, todo.rows, time.monotonic() - started)
    if todo.rows or read_job(folder)["state"] != "done":
        finish(folder, identity, runner, found, done)
    return done


def remember(known: Known, folder: Path, identity: Identity, todo: Todo) -> None:
    """Learn from the finished shards what needn't be embedded again."""
    missing = set(todo.missing)
    for shard in range(identity.shards) if todo.rows else ():
        if shard not in missing:
            rows = read_rows(folder, identity, shard)
            known.add(row for row in rows if not isinstance(row.result, Fault))


def make(
    source: Source,
    identity: Identity,
    runner: Runner,
    folder: Path,
    todo: Todo,
    known: Known,
    on_rows: OnRows,
    readers: int,
) -> None:
    """Make what is to be done, shard after shard."""
    work = [(shard, False) for shard in todo.missing] + [(shard, True) for shard in todo.retried]
    work.sort()

    def numbers() -> Iterator[int]:
        """Of all inputs to embed."""
        for shard, retry in work:
            yield from wanted(folder, identity, shard, retry)

    with closing(embedded_rows(source, numbers(), runner, known, readers)) as batches:
        stream = chain.from_iterable(counted(batches, on_rows))
        for shard, retry in work:
            count = len(wanted(folder, identity, shard, retry))
            rows = list(islice(stream, count))
            runner.confirm()
            if retry:
                again = {row.number: row for row in rows}
                former = read_rows(folder, identity, shard)
                rows = [again.get(row.number, row) for row in former]
            write_shard(folder, identity, shard, rows)


def wanted(folder: Path, identity: Identity, shard: int, retry: bool) -> Sequence[int]:
    """The inputs of a shard that are to be embedded: all, or those with errors."""
    if not retry:
        return identity.numbers(shard)
    rows = read_rows(folder, identity, shard)
    return [row.number for row in rows if isinstance(row.result, Fault)]


def counted(batches: Iterable[list[Row]], on_rows: OnRows) -> Iterator[list[Row]]:
    """Tell of every batch that passes."""
    for batch in batches:
        on_rows(len(batch))
        yield batch


def finish(folder: Path, identity: Identity, runner: str, found: Progress, done: Done) -> None:
    """Say in job.json what became of the job."""
    totals = found.totals
    fields = {
        "state": "done",
        **describe(identity),
        "runner": runner,
        "rows": totals.rows,
        "embedded": totals.embedded,
        "failed": totals.failed,
        "failures": dict(totals.failures.most_common()),
        "shards": identity.shards,
        "last_run": {
            "rows": done.rows,
            "seconds": round(done.seconds, 3),
            "images_per_s": round(done.rows / done.seconds, 1),
        },
    }
    write_job(folder, fields)
