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

from pinhole.jobs.errors import Fault
from pinhole.jobs.known import Known
from pinhole.jobs.rows import Answer, Row
from pinhole.jobs.runners import Prepared, Runner
from pinhole.jobs.sources import Chunk, Content, Source

READERS = 4

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Loaded:
    """A chunk that has been read.

    Attributes:
        chunk: its numbers and names.
        digests: sha256 of each content; None for what couldn't be read.
        images: each content as the runner wants it, or why there is none.
    """

    chunk: Chunk
    digests: list[str | None]
    images: list[Prepared | Fault]

    @property
    def columns(self) -> list[tuple[int, str, str | None, str]]:
        """(number, name, sha256, stamp) of each content."""
        chunk = self.chunk
        stamps = chunk.stamps or [""] * len(chunk.numbers)
        return list(zip(chunk.numbers, chunk.names, self.digests, stamps, strict=True))


@dataclass(frozen=True)
class Embedded:
    """A chunk whose new images have been embedded.

    Attributes:
        loaded: the chunk; its images have been let go of.
        new: positions in the chunk that were embedded, each distinct content once.
        answers: the runner's answer for each of these positions.
    """

    loaded: Loaded
    new: list[int]
    answers: list[Answer | Fault]


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
    readers: int = READERS
    made: Made = field(default_factory=Made)
    # Digests of what is being embedded now.
    _pending: set[str] = field(default_factory=set, init=False)
    # Chunks that were embedded when a chunk before them was interrupted.
    _left_over: list[Embedded | list[Row]] = field(default_factory=list, init=False)

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
        sorted_out = (
            each if isinstance(each, list) else (each, self._new_images(each)) for each in loaded
        )
        try:
            for each in overlap(embedding, 2 * threads, self._embed, sorted_out, self._left_over):
                yield each if isinstance(each, list) else self._to_rows(each)
        finally:
            loaded.close()
            self.runner.stop()
            # A thread that waits for a service is left behind: it may wait for minutes.
            for pool in (reading, embedding):
                pool.shutdown(wait=False, cancel_futures=True)

    def left_over(self) -> list[Row]:
        """Rows that were embedded and not yielded, because the job ended before; in any order."""
        return [
            row
            for each in self._left_over
            if isinstance(each, Embedded)
            for row in self._new_rows(each)
        ]

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

    def _load(self, chunk: Chunk | list[Row]) -> Loaded | list[Row]:
        """Read a chunk's contents, one at a time, and turn each into what the runner wants."""
        if isinstance(chunk, list):
            return chunk
        digests: list[str | None] = []
        images: list[Prepared | Fault] = []
        for content in chunk.load():
            digests.append(digest_of(content))
            images.append(content if isinstance(content, Fault) else self.runner.prepare(content))
        return Loaded(chunk, digests, images)

    def _new_images(self, loaded: Loaded) -> list[int]:
        """Positions of the images to embed: unknown, not being embedded, each content once."""
        pending, new = self._pending, []
        found = self.known.find([each for each in loaded.digests if each and each not in pending])
        for position, (digest, image) in enumerate(zip(loaded.digests, loaded.images, strict=True)):
            if not digest or isinstance(image, Fault) or digest in found or digest in pending:
                continue
            pending.add(digest)
            new.append(position)
        return new

    def _embed(self, given: tuple[Loaded, list[int]] | list[Row]) -> Embedded | list[Row]:
        """Embed a chunk's new images, and let go of the pixels of all its images."""
        if isinstance(given, list):
            return given
        loaded, new = given
        images = [loaded.images[position] for position in new]
        loaded.images[:] = [image if isinstance(image, Fault) else b"" for image in loaded.images]
        return Embedded(loaded, new, self.runner.embed(images) if images else [])

    def _to_rows(self, embedded: Embedded) -> list[Row]:
        """A chunk's rows.

        The chunks before it have become rows already, so what this chunk shares with them is known.
        """
        loaded = embedded.loaded
        columns, digests = loaded.columns, loaded.digests
        results: dict[int, Answer | Fault] = dict(zip(embedded.new, embedded.answers, strict=True))
        self.made.read += len(columns)
        self.made.embedded += sum(isinstance(answer, Answer) for answer in embedded.answers)
        for position, image in enumerate(loaded.images):
            if isinstance(image, Fault):
                results[position] = image
        new = self._new_rows(embedded)
        self.known.add(new)
        self._pending.difference_update(row.sha256 for row in new if row.sha256)
        results |= self._known_results(digests, results)
        return [to_row(column, results[position]) for position, column in enumerate(columns)]

    def _new_rows(self, embedded: Embedded) -> list[Row]:
        """The rows of those of a chunk's images that were embedded."""
        columns = embedded.loaded.columns
        pairs = zip(embedded.new, embedded.answers, strict=True)
        return [to_row(columns[position], answer) for position, answer in pairs]

    def _known_results(
        self, digests: list[str | None], results: dict[int, Answer | Fault]
    ) -> dict[int, Answer | Fault]:
        """The results of the positions that have none yet: an equal content was embedded before."""
        left = {
            position: digest
            for position, digest in enumerate(digests)
            if digest and position not in results
        }
        found = self.known.find(list(left.values()))
        return {position: found[digest] for position, digest in left.items()}


def to_row(column: tuple[int, str, str | None, str], result: Answer | Fault) -> Row:
    """The row of an input, given as (number, name, sha256, stamp)."""
    number, name, digest, stamp = column
    return Row(number, name, digest, result, stamp)


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
