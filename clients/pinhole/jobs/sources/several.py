"""A source of many files that hold images: archives, tables and arrays, one after another."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby, takewhile

from pinhole.jobs.errors import Fault, HoldsNoImages, JobError
from pinhole.jobs.sources import Chunk, Content, Source, Stream
from pinhole.jobs.sources.files import Files

Open = Callable[[], Source]


@dataclass(frozen=True)
class Part:
    """One of the files.

    Attributes:
        name: stands before the names of its images, with a slash between them, unless it is empty.
        digest: its list's; it may not change while the job runs.
        open: lists it.
    """

    name: str
    digest: str
    open: Open


class Several:
    """Some files, and then the images in each file that holds images.

    Only one such file is open at a time, and those whose chunks are still being read. So each is
    listed twice: to count its images, and to read them. A file that can't be listed is an input
    that can't be read.

    Args:
        files: come first.
        collections: (name, what lists it) of each file that holds images.

    Raises:
        JobError: nothing at all can be read.
    """

    def __init__(self, files: Files, collections: Iterable[tuple[str, Open]]) -> None:
        self._files, self.left_out = files, files.left_out
        self.stamps = self._stamps if files.count else None
        self._parts, self._ends = list[Part](), [files.count]
        self._at: int = -1
        self._held: Held | None = None
        self._faults = list[JobError]()
        digest = hashlib.sha256(files.digest.encode())
        for name, opener in collections:
            part, count = self._list(name, opener)
            if count:
                self._parts.append(part)
                self._ends.append(self._ends[-1] + count)
            digest.update(part.digest.encode())
        self.count, self.digest = self._ends[-1], digest.hexdigest()
        if self._faults and self.count == len(self._faults):
            files.close()
            raise self._faults[0]

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """See Source."""
        for at, wanted in groupby(numbers, partial(bisect_right, self._ends)):
            if at == 0:
                yield from self._files.chunks(wanted, size)
                continue
            part, first = self._parts[at - 1], self._ends[at - 1]
            held = self._hold(at)
            for chunk in held.source.chunks((number - first for number in wanted), size):
                yield Chunk(
                    [first + number for number in chunk.numbers],
                    [f"{part.name}/{name}" if part.name else name for name in chunk.names],
                    partial(held.load, chunk),
                    alone=len(self._parts) == 1 and first == 0,
                )

    def close(self) -> None:
        """See Source."""
        self._files.close()
        self._at, self._held = -1, None

    def _stamps(self, numbers: Iterable[int]) -> Iterator[tuple[int, str, str]]:
        """See Source; only of the files that come first, because only they are read by name."""
        return self._files.stamps(takewhile(lambda number: number < self._files.count, numbers))

    def _list(self, name: str, opener: Open) -> tuple[Part, int]:
        """A file and its number of images; 0 if it was made for something else."""
        try:
            source = opener()
        except HoldsNoImages:
            self.left_out.add(name)
            return Part(name, "", opener), 0
        except JobError as error:
            self._faults.append(error)
            unread = partial(unreadable_source, name, error)
            return Part("", unread().digest, unread), 1
        self.left_out.add_all(source.left_out)
        source.close()
        return Part(name, source.digest, opener), source.count

    def _hold(self, at: int) -> "Held":
        """Open a file, unless it is open already.

        Raises:
            JobError: it has changed since it was counted.
        """
        if self._held is None or at != self._at:
            part = self._parts[at - 1]
            held = Held(part.open())
            if held.source.digest != part.digest:
                raise JobError(f"{part.name} has changed since the job began")
            self._at, self._held = at, held
        return self._held


class Held:
    """A source that is closed once no chunk needs it any more: chunks may be read much later."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __del__(self) -> None:
        """Close it."""
        self.source.close()

    def load(self, chunk: Chunk) -> Iterator[Content]:
        """Read one of its chunks; until then, the chunk holds this."""
        yield from chunk.load()


def unreadable_source(name: str, error: JobError) -> Stream:
    """A source of one input that can't be read."""
    items = [(name, Fault("Unreadable", str(error)))]
    return Stream(1, str(error), lambda start: iter(items[start:]))
