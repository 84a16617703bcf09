"""List → read → embed → write, all at once, with few chunks between any two stages.

Chunks are listed and rows are written in the caller's thread, in the source's order. Reading and
embedding have threads of their own, and each stage holds at most twice as many chunks as it has
threads. So memory stays the same for a thousand inputs and for a hundred million.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Pipeline:
    """A source's images through a runner.

    Attributes:
        source: of the inputs.
        runner: embeds them.
        known: what needs no embedding any more; every new answer is added.
        readers: threads that read.
    """

    source: Source
    runner: Runner
    known: Known
    readers: int = READERS
    # Digests of what is being embedded now.
    _pending: set[str] = field(default_factory=set, init=False)

    def rows(self, numbers: Iterable[int]) -> Generator[list[Row], None, None]:
        """Yield the rows of these inputs, chunk after chunk, in their order.

        Args:
            numbers: of the inputs, growing.

        Raises:
            JobError, PinholeError: whatever ends the job; rows that were yielded stay right.
        """
        threads = self.runner.threads
        with ThreadPoolExecutor(self.readers) as reading, ThreadPoolExecutor(threads) as embedding:
            chunks = self.source.chunks(numbers, self.runner.chunk_images)
            loaded = overlap(reading, 2 * self.readers, self._load, chunks)
            sorted_out = ((each, self._new_images(each)) for each in loaded)
            try:
                for embedded in overlap(embedding, 2 * threads, self._embed, sorted_out):
                    yield self._to_rows(embedded)
            finally:
                loaded.close()
                # Without this, leaving the pools would wait for threads that wait for a service.
                self.runner.stop()

    def _load(self, chunk: Chunk) -> Loaded:
        """Read a chunk's contents, one at a time, and turn each into what the runner wants."""
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

    def _embed(self, given: tuple[Loaded, list[int]]) -> Embedded:
        """Embed a chunk's new images, and let go of the pixels of all its images."""
        loaded, new = given
        images = [loaded.images[position] for position in new]
        loaded.images[:] = [image if isinstance(image, Fault) else b"" for image in loaded.images]
        return Embedded(loaded, new, self.runner.embed(images) if images else [])

    def _to_rows(self, embedded: Embedded) -> list[Row]:
        """A chunk's rows.

        The chunks before it have become rows already, so what this chunk shares with them is known.
        """
        loaded = embedded.loaded
        chunk, digests = loaded.chunk, loaded.digests
        results: dict[int, Answer | Fault] = dict(zip(embedded.new, embedded.answers, strict=True))
        new = [
            Row(chunk.numbers[position], chunk.names[position], digests[position], result)
            for position, result in results.items()
        ]
        self.known.add(new)
        self._pending.difference_update(row.sha256 for row in new if row.sha256)
        for position, image in enumerate(loaded.images):
            if isinstance(image, Fault):
                results[position] = image
        results |= self._known_results(digests, results)
        columns = zip(chunk.numbers, chunk.names, digests, strict=True)
        return [Row(*column, results[position]) for position, column in enumerate(columns)]

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


def overlap(
    pool: ThreadPoolExecutor, window: int, function: Callable[[T], U], items: Iterable[T]
) -> Generator[U, None, None]:
    """Map in a pool, in order, with at most ``window`` items taken and not yet yielded."""
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
            future.cancel()


def digest_of(content: Content) -> str | None:
    """sha256 of a file or of pixels; None for what couldn't be read."""
    if isinstance(content, Fault):
        return None
    data = content.tobytes() if isinstance(content, np.ndarray) else content
    return hashlib.sha256(data).hexdigest()
