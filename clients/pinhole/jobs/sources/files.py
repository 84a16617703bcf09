"""Sources whose inputs are files: a folder, a glob, a list, a URL."""

import glob
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import filterfalse
from pathlib import Path
from typing import Any

from pinhole.jobs.errors import JobError, too_large, unreadable
from pinhole.jobs.sources import LARGEST_FILE, Chunk, Content, cut, printable
from pinhole.jobs.sources.listing import Listing
from pinhole.jobs.sources.suffixes import LeftOut, is_image
from serve.bundle.pictures.kinds import SUFFIXES

# The size in bytes that is assumed for a file whose size would take a request of its own to learn.
ASSUMED_SIZE = 256 << 10

# How files are opened. Windows lacks the first two flags, and only Windows has the third.
OPEN = os.O_RDONLY
for flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    OPEN |= getattr(os, flag, 0)

Read = Callable[[str], Content]


class Files:
    """Files by name.

    Args:
        listing: the files' names.
        read: reads the file of a name.
        left_out: see Source.
        archive: the open zip file that holds the files, if one does; closed with the source.
    """

    def __init__(
        self,
        listing: Listing,
        read: Read,
        left_out: LeftOut | None = None,
        archive: zipfile.ZipFile | None = None,
    ) -> None:
        self.count, self.digest = listing.count, listing.digest
        self.left_out = left_out or LeftOut()
        self._listing, self._read, self._archive = listing, read, archive

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """See Source."""
        for run in cut(self._listing.entries(numbers), size, lambda entry: entry[2]):
            names = [name for _, name, _, _ in run]
            wanted = [number for number, _, _, _ in run]
            yield Chunk(wanted, [printable(name) for name in names], self._loader(names))

    def close(self) -> None:
        """See Source."""
        self._listing.close()
        if self._archive:
            self._archive.close()

    def _loader(self, names: list[str]) -> Callable[[], Iterator[Content]]:
        """A function that reads these files when it is called."""
        return lambda: (self._read(name) for name in names)


def folder_source(folder: Path) -> Files:
    """The image files below a folder, by suffix, sorted folder by folder, without hidden files."""
    left_out = LeftOut()
    found = ((name, size, 0) for name, size in walk(os.fspath(folder), "", left_out))
    listing = Listing(f"folder {folder.resolve()}", found)
    return Files(
        listing,
        lambda name: read_file(os.path.join(folder, name)),  # noqa: PTH118 - speed
        left_out,
    )


def walk(folder: str, below: str, left_out: LeftOut) -> Iterator[tuple[str, int]]:
    """Yield relative names and sizes, sorted, folder by folder.

    A folder that can't be listed, and a folder that is named like an image, are yielded too:
    reading them later fails, and the message says why they are no images.
    """
    try:
        with os.scandir(os.path.join(folder, below)) as entries:  # noqa: PTH118 - 70,000 times
            found = sorted(
                (
                    entry.name,
                    entry.is_dir(follow_symlinks=False),
                    entry.is_symlink(),
                    size_of(entry),
                )
                for entry in entries
                if not entry.name.startswith(".")
            )
    except OSError:
        yield below, 0
        return
    for name, is_folder, is_link, size in found:
        if name.lower().endswith(SUFFIXES):
            yield below + name, size
        elif not is_folder:
            left_out.add(name, "linked" if is_link else "")  # What is linked may be a folder.
        if is_folder:
            yield from walk(folder, f"{below}{name}/", left_out)


def size_of(entry: os.DirEntry[str]) -> int:
    """Bytes in a file that may be an image; 0 for any other file, or if the size can't be read."""
    if not entry.name.lower().endswith(SUFFIXES):
        return 0
    try:
        return entry.stat().st_size
    except OSError:
        return 0


def glob_source(pattern: str) -> Files:
    """The files that a pattern matches, sorted; ``**`` stands for any folders."""
    stamp = f"glob {os.path.abspath(pattern)}"  # noqa: PTH100 - a pattern is no path
    return Files(
        Listing(stamp, ((name, stat_size(name), 0) for name in matches(pattern))), read_file
    )


def matches(pattern: str) -> list[str]:
    """What a pattern matches, without the folders that aren't named like an image."""
    return sorted(
        name
        for name in glob.iglob(pattern, recursive=True)  # noqa: PTH207 - a pattern may be absolute
        if name.lower().endswith(SUFFIXES) or not os.path.isdir(name)  # noqa: PTH112 - speed
    )


def list_source(path: Path) -> Files:
    """The files that a text file names, one a line, or each ended by a NUL as by find -print0.

    Relative names are relative to the command's working directory. A line may be a URL.
    """
    listing = Listing(
        f"list {path.resolve()}",
        (
            (name, ASSUMED_SIZE if "://" in name else stat_size(name), 0)
            for name in list_names(path)
        ),
    )
    return Files(listing, lambda name: read_url(name) if "://" in name else read_file(name))


def list_names(path: Path) -> Iterator[str]:
    """Yield the names in a list file."""
    with path.open("rb") as file:
        separator = b"\0" if b"\0" in file.read(1 << 16) else b"\n"
        file.seek(0)
        rest = b""
        while block := file.read(1 << 16):
            *lines, rest = (rest + block).split(separator)
            yield from (os.fsdecode(line) for line in lines if line)
        if rest:
            yield os.fsdecode(rest)


def stat_size(name: str) -> int:
    """Bytes in a file; 0 if the file can't be read, which becomes a row with an error later."""
    try:
        return os.stat(name).st_size  # noqa: PTH116 - speed
    except (OSError, ValueError):
        return 0


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


def url_source(url: str) -> Files:
    """The images below an fsspec URL, or those that a pattern in it matches.

    Raises:
        JobError: fsspec doesn't know the protocol, or the URL can't be listed.
    """
    fs, path = open_url(url)
    try:
        found = fs.glob(path, detail=True) if glob.has_magic(path) else fs.find(path, detail=True)
    except (OSError, ValueError) as error:
        raise JobError(f"{url} can't be listed: {error}") from error
    root = "" if glob.has_magic(path) else path.rstrip("/") + "/"
    files = {name.removeprefix(root): found[name] for name in sorted(found) if is_file(found[name])}
    left_out = LeftOut()
    for name in filterfalse(is_image, files):
        left_out.add(name)
    sizes = ((name, remote_size(files[name]), 0) for name in filter(is_image, files))
    return Files(Listing(f"url {url}", sizes), lambda name: read_remote(fs, root + name), left_out)


def is_file(details: dict[str, Any]) -> bool:
    """Whether this is a file in an fsspec file system; a pattern matches folders too."""
    return bool(details.get("type") != "directory")


def remote_size(details: dict[str, Any]) -> int:
    """Bytes in a file, or ASSUMED_SIZE if its file system doesn't tell."""
    return int(details.get("size") or ASSUMED_SIZE)


def open_url(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        ImportError: fsspec isn't installed.
        JobError: fsspec doesn't know the protocol, or what it needs for it isn't installed.
    """
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise JobError(f"{url} can't be opened: {error}") from error
    return fs, path


def read_url(url: str) -> Content:
    """The content of the file at a URL, or why it can't be read."""
    try:
        return read_remote(*open_url(url))
    except JobError as error:
        return unreadable(OSError(0, str(error)))


def read_remote(fs: Any, path: str) -> Content:
    """The content of a file in an fsspec file system, or why it can't be read."""
    try:
        with fs.open(path, "rb") as file:
            data: bytes = file.read(LARGEST_FILE + 1)
    except OSError as error:
        return unreadable(error)
    return data if len(data) <= LARGEST_FILE else too_large(len(data), LARGEST_FILE)
