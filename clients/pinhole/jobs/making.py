"""Makes shards in this process: the pipeline's rows, shard after shard, into the job's folder."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path

from pinhole.jobs.earlier import earlier_rows, finished
from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.folder import former_path
from pinhole.jobs.job import Job, OnRows
from pinhole.jobs.known import Known
from pinhole.jobs.pipeline import Made, Pipeline
from pinhole.jobs.rows import Row
from pinhole.jobs.runners import Runner
from pinhole.jobs.shards import Totals, shard_path, write_shard
from pinhole.jobs.sources import Source


class InProcess:
    """Embeds by this process, or by a service that it calls; see ShardMaker.

    Args:
        source: of the job's images.
        runner: embeds them.
        readers: threads that read files.
    """

    def __init__(self, source: Source, runner: Runner, readers: int) -> None:
        self.name, self.model = runner.name, runner.model
        self._source, self._runner, self._readers = source, runner, readers

    def make(self, job: Job, shards: Sequence[int], on_rows: OnRows) -> Made:
        """See ShardMaker."""
        with Known() as known:
            again = [shard_path(job.sink.folder, shard) for shard in shards]
            learn(known, job, job.earlier() + again)
            # No input of the other shards is left, but equal contents may be.
            learn(known, job, set(finished(job.sink)).difference(again), by_name=False)
            pipeline = Pipeline(self._source, self._runner, known, self._readers)
            make_shards(job, shards, pipeline, on_rows)
        return pipeline.made


def known_rows(job: Job, source: Source) -> Totals:
    """The rows that are there, or are known by name and stamp; nothing is read or written.

    Raises:
        JobError: OUT holds something else.
    """
    found = job.progress()
    known, failures = found.totals.rows, Counter(found.totals.failures)
    if source.stamps and found.missing:
        with Known() as earlier:
            learn(earlier, job, job.earlier())
            for shard in found.missing:
                rows = earlier.take_over(source.stamps(job.identity.numbers(shard)))
                known += len(rows)
                failures.update(row.result.reason for row in rows if isinstance(row.result, Fault))
    return Totals(known, failures)


def learn(known: Known, job: Job, paths: Iterable[Path], by_name: bool = True) -> None:
    """Take over from earlier results what needn't be embedded again."""
    for path in paths:
        rows = earlier_rows(path, job.identity)
        wanted = (row for row in rows if not (job.retry and isinstance(row.result, Fault)))
        known.learn(wanted, by_name)


def make_shards(job: Job, shards: Sequence[int], pipeline: Pipeline, on_rows: OnRows) -> None:
    """Make some shards, one after another.

    Args:
        job: their job.
        shards: their numbers, growing.
        pipeline: embeds.
        on_rows: see ShardMaker.
    """
    folder, identity = job.sink.folder, job.identity
    rows: list[Row] = []
    try:
        with closing(pipeline.rows(map(identity.numbers, shards))) as batches:
            made = chain.from_iterable(counted(batches, on_rows))
            for shard in shards:
                for row in islice(made, len(identity.numbers(shard))):
                    rows.append(row)  # One by one: what comes before an interruption is kept.
                rows.sort(key=lambda row: row.number)
                pipeline.runner.confirm()
                write_shard(shard_path(folder, shard), identity, shard, rows)
                rows.clear()
    finally:
        # Whatever ends the job, the next run takes the rows of unfinished shards over.
        with suppress(JobError):
            keep(job, rows + pipeline.left_over(), pipeline.runner)


def keep(job: Job, rows: Sequence[Row], runner: Runner) -> None:
    """Put the rows of unfinished shards aside.

    Raises:
        JobError: another model has embedded some of them, or they can't be written.
    """
    if rows:
        runner.confirm()
        folder, shard = job.sink.folder, rows[0].number // job.identity.shard_rows
        path = former_path(folder, shard_path(folder, shard).name)
        write_shard(path, job.identity, shard, rows)


def counted(batches: Iterable[list[Row]], on_rows: OnRows) -> Iterator[list[Row]]:
    """The batches, with ``on_rows`` called for each of them."""
    for batch in batches:
        on_rows(len(batch))
        yield batch
