"""Files by name: how they are read, and what lists their names."""

import codecs
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

from pinhole.jobs.errors import too_large, unreadable
from pinhole.jobs.sources import LARGEST_FILE, Chunk, Content, cut, printable
from pinhole.jobs.sources.listing import Listing
from pinhole.jobs.sources.places import OPEN, Place
from pinhole.jobs.sources.suffixes import LeftOut

Read = Callable[[str], Content]


class Files:
    """Files by name.

    Args:
        listing: the files' names.
        read: reads the file of a name.
        left_out: see Source.
        held: what reading needs to be open; closed with the source.
    """

    def __init__(
        self,
        listing: Listing,
        read: Read,
        left_out: LeftOut | None = None,
        held: ExitStack | None = None,
    ) -> None:
        self.count, self.digest = listing.count, listing.digest
        self.left_out = left_out or LeftOut()
        self._listing, self._read, self._held = listing, read, held or ExitStack()

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """See Source."""
        for run in cut(self._listing.entries(numbers), size, lambda entry: entry[2]):
            wanted, names = [number for number, *_ in run], [name for _, name, *_ in run]
            stamps = [stamp for *_, stamp in run]
            yield Chunk(wanted, [printable(name) for name in names], self._loader(names), stamps)

    def stamps(self, numbers: Iterable[int]) -> Iterator[tuple[int, str, str]]:
        """See Source."""
        for number, name, _, _, stamp in self._listing.entries(numbers):
            yield number, printable(name), stamp

    def close(self) -> None:
        """See Source."""
        self._listing.close()
        self._held.close()

    def _loader(self, names: list[str]) -> Callable[[], Iterator[Content]]:
        """A function that reads these files when it is called."""
        return lambda: (self._read(name) for name in names)


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
