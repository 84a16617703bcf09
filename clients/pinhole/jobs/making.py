"""Makes shards in this process: the pipeline's rows, shard after shard, into the job's folder."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice

from pinhole.jobs.errors import Fault
from pinhole.jobs.folder import Todo
from pinhole.jobs.job import Job, OnRows
from pinhole.jobs.known import Known
from pinhole.jobs.pipeline import READERS, Pipeline
from pinhole.jobs.rows import Row
from pinhole.jobs.runners import Model, Runner
from pinhole.jobs.shards import read_rows, write_shard
from pinhole.jobs.sources import Source


@dataclass(frozen=True)
class InProcess:
    """Embeds by this process, or by a service that it calls; see ShardMaker.

    Attributes:
        source: of the job's images.
        runner: embeds them.
        readers: threads that read files.
    """

    source: Source
    runner: Runner
    readers: int = READERS

    @property
    def name(self) -> str:
        """The runner's name."""
        return self.runner.name

    @property
    def model(self) -> Model:
        """The runner's model."""
        return self.runner.model

    def make(self, job: Job, todo: Todo, on_rows: OnRows) -> None:
        """See ShardMaker."""
        with Known() as known:
            learn(known, job, todo)
            pipeline = Pipeline(self.source, self.runner, known, self.readers)
            make_shards(job, todo.shards, pipeline, on_rows)


def learn(known: Known, job: Job, todo: Todo) -> None:
    """Take over from the job's finished shards what needn't be embedded again."""
    missing = set(todo.missing)
    for shard in range(job.identity.shards):
        if shard not in missing:
            rows = read_rows(job.sink.folder, job.identity, shard)
            known.add(row for row in rows if not isinstance(row.result, Fault))


def make_shards(
    job: Job, shards: Sequence[tuple[int, bool]], pipeline: Pipeline, on_rows: OnRows
) -> None:
    """Make some shards, one after another.

    Args:
        job: their job.
        shards: in growing order, (number, whether only its failed rows are embedded again).
        pipeline: embeds.
        on_rows: see ShardMaker.
    """
    numbers = chain.from_iterable(inputs_to_embed(job, *shard) for shard in shards)
    with closing(pipeline.rows(numbers)) as batches:
        embedded = chain.from_iterable(counted(batches, on_rows))
        for shard, retry in shards:
            rows = list(islice(embedded, len(inputs_to_embed(job, shard, retry))))
            pipeline.runner.confirm()
            if retry:
                rows = replace_rows(read_rows(job.sink.folder, job.identity, shard), rows)
            write_shard(job.sink.folder, job.identity, shard, rows)


def inputs_to_embed(job: Job, shard: int, retry: bool) -> Sequence[int]:
    """The numbers of a shard's inputs, or with ``retry`` of those inputs that failed."""
    if not retry:
        return job.identity.numbers(shard)
    rows = read_rows(job.sink.folder, job.identity, shard)
    return [row.number for row in rows if isinstance(row.result, Fault)]


def replace_rows(before: Iterable[Row], embedded: Iterable[Row]) -> list[Row]:
    """A shard's rows, with the rows that were embedded again in the place of the old ones."""
    again = {row.number: row for row in embedded}
    return [again.get(row.number, row) for row in before]


def counted(batches: Iterable[list[Row]], on_rows: OnRows) -> Iterator[list[Row]]:
    """The batches, with ``on_rows`` called for each of them."""
    for batch in batches:
        on_rows(len(batch))
        yield batch
