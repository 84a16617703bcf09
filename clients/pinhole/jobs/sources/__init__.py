"""Where images come from: a folder, glob, archive, array, table, list or URL.

A source knows how many inputs it has, and hands them out in chunks by their numbers, always in the
same order. A chunk's contents are read when its ``load`` is called, in a reader's thread.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.sources.suffixes import LeftOut

# The most bytes of files in one chunk. In base64 they become 10.7 MiB; the service takes requests
# of 16 MiB.
CHUNK_BYTES = 8 << 20

LARGEST_FILE = 16 << 20  # The service takes no larger request, and a file is sent as one.

Content = bytes | NDArray[np.uint8] | Fault  # A file, pixels uint8[C, H, W], or why there is none.


Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Chunk:
    """Some inputs, in the order of their numbers.

    Attributes:
        numbers: the inputs' places in the source, from 0.
        names: of the inputs, as the column ``path`` has them.
        load: reads the inputs; may be called in any thread, once. To be read to its end: it may
            raise a JobError after the last input, if the source has changed.
        stamps: of the inputs; empty where the source has none.
        alone: whether all of the source's inputs are in the file that these are in.
    """

    numbers: Sequence[int]
    names: Sequence[str]
    load: Callable[[], Iterable[Content]]
    stamps: Sequence[str] = ()
    alone: bool = True


# Yields (number, name as the column ``path`` has it, stamp) of the inputs of these growing numbers.
# A stamp is a short text that changes when the input does, or "" where that isn't known.
Stamps = Callable[[Iterable[int]], Iterator[tuple[int, str, str]]]


class Source(Protocol):
    """A list of inputs that stays the same.

    Attributes:
        count: number of inputs.
        digest: sha256 of the list, of the inputs' stamps too.
        left_out: what else is there, and isn't read.
    """

    count: int
    digest: str
    left_out: LeftOut

    @property
    def stamps(self) -> Stamps | None:
        """Tells the inputs' names and stamps without reading them; None where nothing does."""

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """Yield the inputs of these growing numbers, at most ``size`` and CHUNK_BYTES at a time.

        Finish one iteration before the next: both may read the same open file.

        Raises:
            JobError: the source has changed so that its inputs can't be told apart any more.
        """

    def close(self) -> None:
        """Close the files that it holds open."""


def cut(
    entries: Iterable[Entry], size: int, bytes_of: Callable[[Entry], int]
) -> Iterator[list[Entry]]:
    """Cut entries into runs of at most ``size`` entries and CHUNK_BYTES.

    An entry that is larger than CHUNK_BYTES makes a run of its own.
    """
    run: list[Entry] = []
    total = 0
    for entry in entries:
        if run and (len(run) == size or total + bytes_of(entry) > CHUNK_BYTES):
            yield run
            run, total = [], 0
        run.append(entry)
        total += bytes_of(entry)
    if run:
        yield run


class Stream:
    """A source that can only be read from its beginning on.

    Its inputs are read when they are cut into chunks, not when a chunk's ``load`` is called.

    Args:
        count: number of inputs.
        digest: sha256 of their list.
        items: yields (name, content) of every input from the given number on.
        check: raises a JobError if the source has changed.
        left_out: see Source.
    """

    stamps = None

    def __init__(
        self,
        count: int,
        digest: str,
        items: Callable[[int], Iterator[tuple[str, Content]]],
        check: Callable[[], None] = lambda: None,
        left_out: LeftOut | None = None,
    ) -> None:
        self.count, self.digest, self.left_out = count, digest, left_out or LeftOut()
        self._items, self._check = items, check

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """See Source."""
        for run in cut(self._picked(numbers), size, lambda entry: length_of(entry[2])):
            self._check()  # What was read from a file that had changed is worth nothing.
            contents = [content for _, _, content in run]
            names = [printable(name) for _, name, _ in run]
            yield Chunk([number for number, _, _ in run], names, partial(iter, contents))

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _picked(self, numbers: Iterable[int]) -> Iterator[tuple[int, str, Content]]:
        """Yield (number, name, content) of these growing numbers."""
        wanted = iter(numbers)
        number = next(wanted, None)
        if number is None:
            return
        self._check()
        for position, (name, content) in enumerate(self._items(number), number):
            if position == number:
                yield position, name, content
                number = next(wanted, None)
                if number is None:
                    return
        raise JobError("the source has become shorter since it was listed")


def length_of(content: Content) -> int:
    """Bytes of a file or of pixels; 0 for a fault."""
    if isinstance(content, np.ndarray):
        return content.nbytes
    return 0 if isinstance(content, Fault) else len(content)


def stamp_of(size: int, changed: object) -> str:
    """The stamp of an input of this size in bytes that was changed at this time."""
    return f"{size} {changed}"


def printable(name: str) -> str:
    r"""A name in UTF-8; a byte that isn't UTF-8 is written as ``\xe9``."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
