"""List → read → embed → write, all at once, with few chunks between any two stages.

Inputs whose rows are taken over from an earlier job pass by the reading and the embedding. Chunks
are listed and rows are written in the caller's thread, in the source's order. Reading and
embedding have threads of their own, and each stage holds at most twice as many chunks as it has
threads. So memory stays the same for a thousand inputs and for a hundred million.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

import numpy as np

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.known import Known
from pinhole.jobs.rows import Answer, Row
from pinhole.jobs.runners import Prepared, Runner
from pinhole.jobs.sources import Chunk, Content, Source

T = TypeVar("T")
U = TypeVar("U")


@dataclass
class Batch:
    """A chunk that has been read, or rows that need no reading.

    Attributes:
        taken: rows that were taken over from an earlier job; then all else is empty.
        inputs: (number, name, sha256, stamp) of each; sha256 is None for what couldn't be read.
        images: each content as the runner wants it, or why there is none; empty once embedded.
        results: by place in the chunk; missing where that of an equal content counts.
        new: places of the images that are embedded, each distinct content once.
    """

    taken: list[Row] = field(default_factory=list)
    inputs: list[tuple[int, str, str | None, str]] = field(default_factory=list)
    images: list[Prepared | Fault] = field(default_factory=list)
    results: dict[int, Answer | Fault] = field(default_factory=dict)
    new: list[int] = field(default_factory=list)

    def left(self) -> dict[int, str]:
        """The sha256, by place, of what has been read and has no result yet."""
        digests = ((place, digest) for place, (_, _, digest, _) in enumerate(self.inputs))
        return {at: digest for at, digest in digests if digest and at not in self.results}

    def rows(self, places: Iterable[int]) -> list[Row]:
        """The rows of the inputs in these places."""
        return [
            Row(number, name, digest, self.results[place], stamp)
            for place in places
            for number, name, digest, stamp in [self.inputs[place]]
        ]


@dataclass
class Made:
    """What a run has made of the inputs that it was given.

    Attributes:
        read: inputs that it has read, or tried to; all others were taken over.
        embedded: images that the runner has embedded, each content once.
    """

    read: int = 0
    embedded: int = 0


@dataclass(frozen=True)
class Pipeline:
    """A source's images through a runner.

    Attributes:
        source: of the inputs.
        runner: embeds them.
        known: what needs no embedding any more; every new answer is added.
        readers: threads that read.
        made: so far.
    """

    source: Source
    runner: Runner
    known: Known
    readers: int
    made: Made = field(default_factory=Made)
    # Digests of what is being embedded now.
    _pending: set[str] = field(default_factory=set, init=False)
    # Chunks that were embedded when a chunk before them was interrupted.
    _left_over: list[Batch] = field(default_factory=list, init=False)

    def rows(self, shards: Iterable[Sequence[int]]) -> Generator[list[Row], None, None]:
        """Yield the rows of these inputs, shard after shard, and in any order within a shard.

        Args:
            shards: numbers of the inputs, growing.

        Raises:
            JobError, PinholeError: whatever ends the job; rows that were yielded stay right.
        """
        threads = self.runner.threads
        reading, embedding = ThreadPoolExecutor(self.readers), ThreadPoolExecutor(threads)
        loaded = overlap(reading, 2 * self.readers, self._load, self._items(shards), [])
        chosen = map(self._choose, loaded)
        try:
            for batch in overlap(embedding, 2 * threads, self._embed, chosen, self._left_over):
                yield self._to_rows(batch)
        finally:
            loaded.close()
            self.runner.stop()
            # A thread that waits for a service is left behind: it may wait for minutes.
            for pool in (reading, embedding):
                pool.shutdown(wait=False, cancel_futures=True)

    def left_over(self) -> list[Row]:
        """Rows that were embedded and not yielded, because the job ended before; in any order."""
        return [row for batch in self._left_over for row in batch.rows(batch.new)]

    def _items(self, shards: Iterable[Sequence[int]]) -> Iterator[Chunk | list[Row]]:
        """Yield the rows that are taken over, and chunks of all other inputs."""
        stamps, size = self.source.stamps, self.runner.chunk_images
        if stamps is None or not self.known.any_stamp:
            # All at once: parts of the source may only be read from their beginning on.
            yield from self.source.chunks(chain.from_iterable(shards), size)
            return
        for numbers in shards:
            rows = self.known.take_over(stamps(numbers))
            yield from (rows[start : start + size] for start in range(0, len(rows), size))
            taken = {row.number for row in rows}
            yield from self.source.chunks((n for n in numbers if n not in taken), size)

    def _load(self, chunk: Chunk | list[Row]) -> Batch:
        """Read a chunk's contents, one at a time, and turn each into what the runner wants."""
        if isinstance(chunk, list):
            return Batch(taken=chunk)
        batch, stamps = Batch(), chunk.stamps or [""] * len(chunk.names)
        inputs = zip(chunk.numbers, chunk.names, stamps, chunk.load(), strict=True)
        for place, (number, name, stamp, content) in enumerate(inputs):
            image = self._prepare(content, chunk.alone)
            batch.inputs.append((number, name, digest_of(content), stamp))
            batch.images.append(image)
            if isinstance(image, Fault):
                batch.results[place] = image
        return batch

    def _prepare(self, content: Content, alone: bool) -> Prepared | Fault:
        """What the runner wants of a content, or why there is none.

        Raises:
            JobError: the pixels of the only array have another size than the model's pictures.
        """
        spec = self.runner.model.image
        if isinstance(content, np.ndarray) and spec and content.shape != spec.shape:
            wanted, found = (", ".join(map(str, shape)) for shape in (spec.shape, content.shape))
            if alone:
                raise JobError(
                    f"the model takes uint8[N, {wanted}]; the source holds uint8[N, {found}]"
                )
            return Fault("InvalidImage", f"the model takes uint8[{wanted}]; this is uint8[{found}]")
        return content if isinstance(content, Fault) else self.runner.prepare(content)

    def _choose(self, batch: Batch) -> Batch:
        """Choose the images to embed: unknown, not being embedded, each content once."""
        pending, left = self._pending, batch.left()
        found = self.known.find(digest for digest in left.values() if digest not in pending)
        for place, digest in left.items():
            if digest not in found and digest not in pending:
                pending.add(digest)
                batch.new.append(place)
        return batch

    def _embed(self, batch: Batch) -> Batch:
        """Embed a chunk's new images, and let go of all its images."""
        images = [batch.images[place] for place in batch.new]
        batch.images.clear()
        answers = self.runner.embed(images) if images else []
        batch.results.update(zip(batch.new, answers, strict=True))
        return batch

    def _to_rows(self, batch: Batch) -> list[Row]:
        """A chunk's rows.

        The chunks before it have become rows already, so what this chunk shares with them is known.
        """
        new = batch.rows(batch.new)
        self.made.read += len(batch.inputs)
        self.made.embedded += sum(isinstance(row.result, Answer) for row in new)
        self.known.add(new)
        self._pending.difference_update(row.sha256 for row in new if row.sha256)
        left = batch.left()
        found = self.known.find(left.values())
        batch.results.update((place, found[digest]) for place, digest in left.items())
        return batch.taken + batch.rows(range(len(batch.inputs)))


def overlap(
    pool: ThreadPoolExecutor,
    window: int,
    function: Callable[[T], U],
    items: Iterable[T],
    left_over: list[U],
) -> Generator[U, None, None]:
    """Map in a pool, in order, with at most ``window`` items taken and not yet yielded.

    When it is closed, or fails, the results that are there go into ``left_over``.
    """
    running: deque[Future[U]] = deque()
    try:
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) == window:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            if not future.cancel() and future.done() and not future.exception():
                left_over.append(future.result())


def digest_of(content: Content) -> str | None:
    """sha256 of a file or of pixels; None for what couldn't be read."""
    if isinstance(content, Fault):
        return None
    data = content.tobytes() if isinstance(content, np.ndarray) else content
    return hashlib.sha256(data).hexdigest()
