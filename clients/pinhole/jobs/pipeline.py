"""List → read → embed → write, all at once, with few chunks between any two of them.

Chunks are listed and rows written in the caller's thread, in the source's order; reading and
embedding each have threads of their own, which never hold more than twice as many chunks. So
memory is the same for a thousand inputs and for a hundred million.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pinhole.jobs.errors import Fault
from pinhole.jobs.known import Known
from pinhole.jobs.rows import Answer, Row
from pinhole.jobs.runners import Prepared, Runner
from pinhole.jobs.sources import Chunk, Content, Source

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Loaded:
    """A chunk that has been read.

    Attributes:
        chunk: which.
        digests: sha256 of each content; None where there is none.
        images: each as the runner wants it, or why it can't be had.
    """

    chunk: Chunk
    digests: list[str | None]
    images: list[Prepared | Fault]


@dataclass(frozen=True)
class Asked:
    """A chunk of which the new images are with the runner.

    Attributes:
        loaded: the chunk; the images have gone.
        new: positions in it of those that are embedded, each content once.
        answers: one for each.
    """

    loaded: Loaded
    new: list[int]
    answers: list[Answer | Fault]


def embedded_rows(
    source: Source, numbers: Iterable[int], runner: Runner, known: Known, readers: int
) -> Generator[list[Row], None, None]:
    """The rows of these inputs, chunk after chunk, in their order.

    Args:
        source: of the inputs.
        numbers: which of them, growing.
        runner: embeds.
        known: what needs no embedding any more; grows by what is found.
        readers: threads that read.

    Raises:
        JobError, PinholeError: whatever ends the job; what was yielded stays right.
    """
    pending: set[str] = set()  # digests of what is being embedded
    with ThreadPoolExecutor(readers) as reading, ThreadPoolExecutor(runner.threads) as embedding:
        chunks = source.chunks(numbers, runner.chunk_images)
        loaded = overlap(reading, 2 * readers, lambda chunk: load(chunk, runner), chunks)

        def ask(given: tuple[Loaded, list[int]]) -> Asked:
            """Embed a chunk's new images, and let go of all its pixels."""
            each, new = given
            images = [each.images[position] for position in new]
            each.images[:] = [image if isinstance(image, Fault) else b"" for image in each.images]
            return Asked(each, new, runner.embed(images) if images else [])

        sorted_out = ((each, new_images(each, known, pending)) for each in loaded)
        try:
            for asked in overlap(embedding, 2 * runner.threads, ask, sorted_out):
                yield finish(asked, known, pending)
        finally:
            loaded.close()
            runner.stop()  # or threads that wait for a service would be waited for


def overlap(
    pool: ThreadPoolExecutor, window: int, function: Callable[[T], U], items: Iterable[T]
) -> Generator[U, None, None]:
    """Map in a pool, in order, with at most ``window`` items between taking and giving."""
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


def load(chunk: Chunk, runner: Runner) -> Loaded:
    """Read a chunk's contents, one at a time, and turn each into what the runner wants."""
    digests: list[str | None] = []
    images: list[Prepared | Fault] = []
    for content in chunk.load():
        digests.append(digest_of(content))
        images.append(content if isinstance(content, Fault) else runner.prepare(content))
    return Loaded(chunk, digests, images)


def digest_of(content: Content) -> str | None:
    """sha256 of a file or of pixels."""
    if isinstance(content, Fault):
        return None
    data = content.tobytes() if isinstance(content, np.ndarray) else content
    return hashlib.sha256(data).hexdigest()


def new_images(loaded: Loaded, known: Known, pending: set[str]) -> list[int]:
    """Positions of the images to embed: not known, not being embedded, each content once."""
    digests = [digest for digest in loaded.digests if digest and digest not in pending]
    found = known.find(digests)
    new = []
    for position, (digest, image) in enumerate(zip(loaded.digests, loaded.images, strict=True)):
        if digest and not isinstance(image, Fault) and not (digest in found or digest in pending):
            pending.add(digest)
            new.append(position)
    return new


def finish(asked: Asked, known: Known, pending: set[str]) -> list[Row]:
    """A chunk's rows, once those before it are finished: what it shares with them is known now."""
    chunk, digests = asked.loaded.chunk, asked.loaded.digests
    results: dict[int, Answer | Fault] = dict(zip(asked.new, asked.answers, strict=True))
    fresh = [
        Row(chunk.numbers[position], chunk.names[position], digests[position], result)
        for position, result in results.items()
    ]
    known.add(fresh)
    pending.difference_update(row.sha256 for row in fresh if row.sha256)
    for position, image in enumerate(asked.loaded.images):
        if isinstance(image, Fault):
            results[position] = image
    results |= shared(digests, results, known)
    columns = zip(chunk.numbers, chunk.names, digests, strict=True)
    return [Row(*columns_of, results[position]) for position, columns_of in enumerate(columns)]


def shared(
    digests: list[str | None], results: dict[int, Answer | Fault], known: Known
) -> dict[int, Answer | Fault]:
    """The results of all positions that have none yet: their contents were embedded elsewhere."""
    others = {
        position: digest
        for position, digest in enumerate(digests)
        if digest and position not in results
    }
    found = known.find(list(others.values()))
    return {position: found[digest] for position, digest in others.items()}
