"""A job from beginning to end: what is there already, what is left, and the making of that."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pinhole.jobs.errors import JobError
from pinhole.jobs.folder import (
    Progress,
    Todo,
    begin,
    describe,
    has_to_give_way,
    locked,
    nothing_done,
    progress,
    read_job,
    write_job,
)
from pinhole.jobs.runners import Model
from pinhole.jobs.shards import Identity, Totals
from pinhole.jobs.sinks import Sink, assemble, clear
from pinhole.jobs.sources.suffixes import LeftOut

OnRows = Callable[[int], None]  # Called with the number of rows that have just been finished.


@dataclass(frozen=True)
class Done:
    """What a run has done.

    Attributes:
        totals: what the shards hold now.
        rows: inputs that this run has gone through.
        seconds: duration of the run.
    """

    totals: Totals
    rows: int
    seconds: float


class ShardMaker(Protocol):
    """Makes a job's shards. There are two: ``making.InProcess`` and ``ray.RayCluster``."""

    @property
    def name(self) -> str:
        """Where it embeds, for _job.json."""

    @property
    def model(self) -> Model:
        """What it embeds with."""

    def make(self, job: "Job", todo: Todo, on_rows: OnRows) -> None:
        """Make the missing shards, and embed the failed rows of the shards to be retried.

        Args:
            job: its folder is locked by the caller.
            todo: which shards.
            on_rows: called as rows are embedded; the newest rows may not be written yet.

        Raises:
            JobError: the source has changed, or a shard can't be written.
            PinholeError: the service has been unavailable for too long.
        """


@dataclass(frozen=True)
class Job:
    """One source, embedded by one model into OUT.

    Attributes:
        sink: OUT.
        identity: what may not change between two runs.
        left_out: files in the source that aren't inputs.
        overwrite: whether the job begins anew where its folder holds something else.
    """

    sink: Sink
    identity: Identity
    left_out: LeftOut = field(default_factory=LeftOut)
    overwrite: bool = False

    def plan(self, retry: bool) -> tuple[Progress, Todo]:
        """How far the job has come, and what is left of it; nothing is written.

        Args:
            retry: count rows that have an error as left.

        Raises:
            JobError: OUT holds something else.
        """
        anew = has_to_give_way(self.sink.folder, self.identity, self.overwrite)
        found = nothing_done(self.identity) if anew else progress(self.sink.folder, self.identity)
        return found, found.todo(self.identity, retry)

    def run(self, maker: ShardMaker, on_rows: OnRows, retry: bool = False) -> Done:
        """Make what is left of the job; assemble a one-file OUT and clear its hidden folder.

        Args:
            maker: makes the shards.
            on_rows: called as rows are finished, first with those of earlier runs.
            retry: embed rows again that have an error.

        Raises:
            JobError: OUT is another job's, or in use by another process, or can't be written to.
            PinholeError: the service has been unavailable for too long.
        """
        with locked(self.sink.folder):
            done = self._make_shards(maker, on_rows, retry)
            if self.sink.one_file:
                assemble(self.sink, self.identity)
                if not done.totals.failed:
                    clear(self.sink)
        return done

    def _make_shards(self, maker: ShardMaker, on_rows: OnRows, retry: bool) -> Done:
        """Have the missing shards made, and record the result in _job.json."""
        started = time.monotonic()
        begin(self.sink.folder, self.identity, self.overwrite)
        todo = progress(self.sink.folder, self.identity).todo(self.identity, retry)
        on_rows(self.identity.inputs - todo.rows)
        if todo.rows:
            write_job(self.sink.folder, {"state": "running", **describe(self.identity)})
            maker.make(self, todo, on_rows)
        totals = self._count_rows()
        done = Done(totals, todo.rows, time.monotonic() - started)
        if todo.rows or read_job(self.sink.folder)["state"] != "done":
            self._record(maker.name, done)
        return done

    def _count_rows(self) -> Totals:
        """What the finished shards hold.

        Raises:
            JobError: a shard is missing.
        """
        # Listing the folder makes a network file system notice the files that other hosts wrote.
        list(self.sink.folder.iterdir())
        found = progress(self.sink.folder, self.identity)
        if found.missing:
            raise JobError(
                f"{len(found.missing):,} of {self.identity.shards:,} shards are missing in "
                f"{self.sink.folder}; run the same command again to make them"
            )
        return found.totals

    def _record(self, runner: str, done: Done) -> None:
        """Write the finished job's _job.json."""
        fields = {
            "state": "done",
            **describe(self.identity),
            "runner": runner,
            "rows": done.totals.rows,
            "embedded": done.totals.embedded,
            "failed": done.totals.failed,
            "failures": dict(done.totals.failures.most_common()),
            "left_out": dict(self.left_out.most_common()),
            "shards": self.identity.shards,
            "last_run": {
                "rows": done.rows,
                "seconds": round(done.seconds, 3),
                "images_per_s": round(done.rows / done.seconds, 1),
            },
        }
        write_job(self.sink.folder, fields)
