"""Where images come from: a folder, glob, archive, array, table, list or URL, one after another.

A source knows how many inputs it has, hands them out in chunks by their numbers, and always in the
same order. What a chunk holds is read where and when its ``load`` is called: in a reader's thread.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pinhole.jobs.errors import Fault, JobError

CHUNK_BYTES = 8 << 20  # of files in one chunk; base64 makes 10.7 MiB of them, a request has 16
LARGEST_FILE = 16 << 20  # a request's limit

Content = bytes | NDArray[np.uint8] | Fault  # a file, pixels uint8[C, H, W], or why neither


@dataclass(frozen=True)
class Chunk:
    """Some inputs, in the order of their numbers.

    Attributes:
        numbers: of the inputs in the source, from 0.
        names: one for each, as it goes into the column ``path``.
        load: reads them; may be called in any thread, once.
    """

    numbers: Sequence[int]
    names: Sequence[str]
    load: Callable[[], Iterable[Content]]


class Source(Protocol):
    """A list of inputs that stays the same.

    Attributes:
        count: how many inputs.
        digest: sha256 of the list; a source with another list is another source.
    """

    count: int
    digest: str

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """The inputs of these growing numbers, at most ``size`` and CHUNK_BYTES at a time.

        One iteration at a time: it may share a file with the next.

        Raises:
            JobError: the source has changed so that its inputs can't be told apart any more.
        """

    def close(self) -> None:
        """Let go of files."""


def cut(entries: Iterable[tuple[int, str, int]], size: int) -> Iterator[list[tuple[int, str, int]]]:
    """Cut (number, name, bytes) into runs of at most ``size`` and CHUNK_BYTES, or one larger."""
    run: list[tuple[int, str, int]] = []
    total = 0
    for entry in entries:
        if run and (len(run) == size or total + entry[2] > CHUNK_BYTES):
            yield run
            run, total = [], 0
        run.append(entry)
        total += entry[2]
    if run:
        yield run


class Stream:
    """A source that can only be read from its beginning on: what it holds is read as it is cut.

    Args:
        count: how many inputs.
        digest: of their list.
        items: yields (name, content) of every input from the given number on.
    """

    def __init__(
        self, count: int, digest: str, items: Callable[[int], Iterator[tuple[str, Content]]]
    ) -> None:
        self.count, self.digest = count, digest
        self._items = items

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """See Source."""
        run: list[tuple[int, str, Content]] = []
        total = 0
        for item in self._picked(numbers):
            length = 0 if isinstance(item[2], Fault) else len(item[2])
            if run and (len(run) == size or total + length > CHUNK_BYTES):
                yield in_hand(run)
                run, total = [], 0
            run.append(item)
            total += length
        if run:
            yield in_hand(run)

    def close(self) -> None:
        """Nothing is kept open."""

    def _picked(self, numbers: Iterable[int]) -> Iterator[tuple[int, str, Content]]:
        """The items of these growing numbers."""
        wanted = iter(numbers)
        number = next(wanted, None)
        if number is None:
            return
        for position, (name, content) in enumerate(self._items(number), number):
            if position == number:
                yield position, name, content
                number = next(wanted, None)
                if number is None:
                    return
        raise JobError("the source has become shorter since it was listed")


def in_hand(run: list[tuple[int, str, Content]]) -> Chunk:
    """A chunk of what has been read already."""
    contents = [content for _, _, content in run]
    return Chunk(
        [number for number, _, _ in run], [printable(name) for _, name, _ in run], lambda: contents
    )


def stamp(path: Path) -> str:
    """What tells a file from the same one changed."""
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def check_stamp(path: Path, before: str) -> None:
    """Raise JobError if a file isn't what it was: its parts would be sought in the wrong places."""
    if stamp(path) != before:
        raise JobError(f"{path} has changed since the job began: replaced, grown or cut short")


def printable(name: str) -> str:
    r"""A name in UTF-8; bytes that aren't are written as ``\xe9``."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
