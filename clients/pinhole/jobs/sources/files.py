"""Files by name: how they are read, and what lists their names."""

import codecs
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial

from pinhole.jobs.errors import Fault, JobError, too_large, unreadable
from pinhole.jobs.sources import LARGEST_FILE, Chunk, Content, cut, printable
from pinhole.jobs.sources.listing import Listing
from pinhole.jobs.sources.places import OPEN, Place
from pinhole.jobs.sources.remote import read_remote
from pinhole.jobs.sources.suffixes import LeftOut

Entry = tuple[int, str, int, int, str]  # See Listing.entries.


class Files:
    """Files, or members of an archive, in any order.

    Args:
        listing: the files' names.
        load: reads some of them; may be called in any thread.
        left_out: see Source.
        held: what reading needs to be open; closed with the source.
    """

    def __init__(
        self,
        listing: Listing,
        load: Callable[[list[Entry]], Iterator[Content]],
        left_out: LeftOut | None = None,
        held: ExitStack | None = None,
    ) -> None:
        self.count, self.digest = listing.count, listing.digest
        self.left_out = left_out or LeftOut()
        self._listing, self._load, self._held = listing, load, held or ExitStack()

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """See Source."""
        for run in cut(self._listing.entries(numbers), size, lambda entry: entry[2]):
            wanted, names, _, _, stamps = zip(*run, strict=True)
            yield Chunk(wanted, list(map(printable, names)), partial(self._load, run), stamps)

    def stamps(self, numbers: Iterable[int]) -> Iterator[tuple[int, str, str]]:
        """See Source."""
        for number, name, _, _, stamp in self._listing.entries(numbers):
            yield number, printable(name), stamp

    def close(self) -> None:
        """See Source."""
        self._listing.close()
        self._held.close()


def by_name(read: Callable[[str], Content]) -> Callable[[list[Entry]], Iterator[Content]]:
    """What loads entries with a function that reads the file of a name."""
    return lambda run: (read(name) for _, name, *_ in run)


def list_names(place: Place) -> Iterator[str]:
    """Yield the names in a text file, one a line, or each ended by a NUL as by find -print0.

    Windows' line ends and marks of UTF-8 and UTF-16 are understood.
    """
    with place.open() as file:
        start = file.read(1 << 16)
        file.seek(0)
        utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        separator = "\0" if b"\0" in start and not utf16 else "\n"
        encoding, errors = ("utf-16", "replace") if utf16 else ("utf-8-sig", "surrogateescape")
        text, rest = io.TextIOWrapper(file, encoding, errors, newline=""), ""
        while block := text.read(1 << 16):
            *lines, rest = (rest + block).split(separator)
            yield from filter(None, (bare(line, separator) for line in lines))
        yield from filter(None, [bare(rest, separator)])


def bare(line: str, separator: str) -> str:
    """A line of a list without the carriage return of Windows' line ends."""
    return line.removesuffix("\r") if separator == "\n" else line


def read_named(place_of: Callable[[str], Place], name: str) -> Content:
    """The content of the file that a name stands for, or why it can't be read."""
    try:
        place = place_of(name)
    except JobError as error:  # Of a URL in a list.
        return Fault("Unreadable", f"can't be read: {error}")
    return read_file(place.path) if place.fs is None else read_remote(place.fs, place.path)


def read_file(name: str) -> Content:
    """A file's content, or why it can't be read.

    A name that isn't a plain file's, e.g. a pipe's, is a fault: reading it could block for ever.
    """
    try:
        handle = os.open(name, OPEN)
        try:
            status = os.fstat(handle)
            if stat.S_ISDIR(status.st_mode):
                return unreadable(IsADirectoryError(0, "Is a directory"))
            if not stat.S_ISREG(status.st_mode):
                return unreadable(OSError(0, "Not a file"))
            if status.st_size > LARGEST_FILE:
                return too_large(status.st_size, LARGEST_FILE)
            return read_all(handle, status.st_size)
        finally:
            os.close(handle)
    except OSError as error:
        return unreadable(error)
    except ValueError:  # The name contains a NUL.
        return unreadable(OSError(0, "No such file or directory"))


def read_all(handle: int, expected: int) -> Content:
    """The content of an open file, which may be growing."""
    data = os.read(handle, expected + 1)
    if len(data) == expected and data:
        return data
    while len(data) <= LARGEST_FILE and (more := os.read(handle, 1 << 20)):
        data += more
    return data if len(data) <= LARGEST_FILE else too_large(len(data), LARGEST_FILE)
