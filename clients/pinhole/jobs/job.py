"""A job from beginning to end: what is there already, what is left, and the making of that."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pinhole.jobs.earlier import check_earlier, put_aside
from pinhole.jobs.errors import JobError
from pinhole.jobs.folder import (
    Progress,
    begin,
    describe,
    locked,
    progress,
    read_job,
    write_job,
)
from pinhole.jobs.pipeline import Made
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
        made: what this run has read and embedded.
        seconds: duration of the run.
    """

    totals: Totals
    made: Made
    seconds: float


class ShardMaker(Protocol):
    """Makes a job's shards. There are two: ``making.InProcess`` and ``ray.RayCluster``."""

    @property
    def name(self) -> str:
        """Where it embeds, for _job.json."""

    @property
    def model(self) -> Model:
        """What it embeds with."""

    def make(self, job: "Job", shards: Sequence[int], on_rows: OnRows) -> Made:
        """Make shards, or make them again.

        Args:
            job: its folder is locked by the caller.
            shards: their numbers, growing.
            on_rows: called as rows are made; the newest rows may not be written yet.

        Raises:
            JobError: the source has changed, or a shard can't be written.
            PinholeError: the service has been unavailable for too long.
        """


@dataclass(frozen=True)
class Job:
    """One source, embedded by one model into OUT.

    Attributes:
        sink: OUT.
        identity: by which its shards are known.
        left_out: files in the source that aren't inputs.
        overwrite: whether the job begins anew where OUT holds something else.
        retry: whether to embed rows again that have an error.
        reuse: Parquet files of another result, whose rows are taken over too.
    """

    sink: Sink
    identity: Identity
    left_out: LeftOut = field(default_factory=LeftOut)
    overwrite: bool = False
    retry: bool = False
    reuse: Sequence[Path] = ()

    def progress(self) -> Progress:
        """How far the job has come; nothing is written.

        Raises:
            JobError: OUT holds something else.
        """
        self._check()
        return progress(self.sink.folder, self.identity)

    def earlier(self) -> list[Path]:
        """The Parquet files whose rows may be taken over, besides those of finished shards."""
        return put_aside(self.sink) + list(self.reuse)

    def run(self, maker: ShardMaker, on_rows: OnRows) -> Done:
        """Make what is left of the job; assemble a one-file OUT.

        Args:
            maker: makes the shards.
            on_rows: called as rows are finished, first with those of earlier runs.

        Raises:
            JobError: OUT is another job's, or in use by another process, or can't be written to.
            PinholeError: the service has been unavailable for too long.
        """
        self._check()  # Before the folder is made, and again within the lock.
        with locked(self.sink.folder):
            done = self._make_shards(maker, on_rows)
            if self.sink.one_file:
                assemble(self.sink, self.identity)
            clear(self.sink)
        return done

    def _check(self) -> None:
        """Raise JobError if OUT holds something else that isn't to be replaced."""
        if not self.overwrite:
            check_earlier(self.sink, self.identity)

    def _make_shards(self, maker: ShardMaker, on_rows: OnRows) -> Done:
        """Have the missing shards made, and record the result in _job.json."""
        started = time.monotonic()
        shards = self.progress().left(self.retry)
        begin(self.sink.folder, self.identity)
        on_rows(self.identity.inputs - sum(len(self.identity.numbers(shard)) for shard in shards))
        made = Made()
        if shards:
            write_job(self.sink.folder, {"state": "running", **describe(self.identity)})
            made = maker.make(self, shards, on_rows)
        totals = self._count_rows()
        done = Done(totals, made, time.monotonic() - started)
        if shards or read_job(self.sink.folder)["state"] != "done":
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
                "rows": done.made.read,
                "embedded": done.made.embedded,
                "seconds": round(done.seconds, 3),
                "images_per_s": round(done.made.read / done.seconds, 1),
            },
        }
        write_job(self.sink.folder, fields)
