"""Sources in one file: zip, and tar, compressed or not."""

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import IO, Any

from pinhole.jobs.errors import Fault, JobError, too_large, unreadable
from pinhole.jobs.sources import (
    LARGEST_FILE,
    Chunk,
    Content,
    Stream,
    check_stamp,
    cut,
    printable,
    stamp,
)
from pinhole.jobs.sources.files import Files, is_shown
from pinhole.jobs.sources.listing import Listing

DAMAGED = (lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError)


def zip_source(path: Path) -> Files:
    """The images in a zip file, in its order. Its directory is held in memory.

    Raises:
        JobError: it is damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise JobError(f"{path} can't be read as a zip file: {error}") from error
    images = [each for each in archive.infolist() if is_shown(each.filename) and not each.is_dir()]
    members = {each.filename: each for each in images}
    sizes = ((each.filename, each.file_size, 0) for each in members.values())
    listing = Listing(f"zip {stamp(path)}", sizes)
    return Files(listing, lambda name: read_member(archive, members[name]), archive)


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Content:
    """A member of a zip file; what unpacks to more than it declares is cut off."""
    if member.file_size > LARGEST_FILE:
        return too_large(member.file_size, LARGEST_FILE)
    try:
        with archive.open(member) as file:
            return file.read(LARGEST_FILE + 1)
    except RuntimeError:  # zipfile's word for it
        return Fault("Unreadable", "can't be read: it is encrypted")
    except (*DAMAGED, NotImplementedError):
        return Fault("Unreadable", "can't be read: damaged in the zip file")


def tar_source(path: Path) -> "PlainTar | Stream":
    """The images in a tar file, in its order.

    Raises:
        JobError: it is damaged.
    """
    return packed_tar_source(path) if packing(path) else PlainTar(path)


class PlainTar:
    """A tar file that isn't compressed: its members are read where they lie, in any order."""

    def __init__(self, path: Path) -> None:
        self._path, self._stamp = path, stamp(path)
        self._listing = Listing(
            f"tar {self._stamp}",
            ((member.name, member.size, member.offset_data) for _, member in members(path)),
        )
        self.count, self.digest = self._listing.count, self._listing.digest

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """See Source."""
        places: dict[int, int] = {}

        def entries() -> Iterator[tuple[int, str, int]]:
            for number, name, length, place in self._listing.entries(numbers):
                places[number] = place
                yield number, name, length

        for run in cut(entries(), size):
            spans = [(places.pop(number), length) for number, _, length in run]
            names = [printable(name) for _, name, _ in run]
            yield Chunk([number for number, _, _ in run], names, self._loader(spans))

    def close(self) -> None:
        """See Source."""
        self._listing.close()

    def _loader(self, spans: list[tuple[int, int]]) -> Callable[[], Iterator[Content]]:
        """What reads these, when it is called."""

        def load() -> Iterator[Content]:
            check_stamp(self._path, self._stamp)
            with self._path.open("rb") as file:
                yield from (read_span(file, place, length) for place, length in spans)

        return load


def read_span(file: IO[bytes], place: int, length: int) -> Content:
    """So many bytes from a place in a file."""
    if length > LARGEST_FILE:
        return too_large(length, LARGEST_FILE)
    try:
        data = os.pread(file.fileno(), length, place)
    except OSError as error:
        return unreadable(error)
    return (
        data
        if len(data) == length
        else Fault("Unreadable", "can't be read: the tar file ends before it")
    )


def packed_tar_source(path: Path) -> Stream:
    """A compressed tar file: it is unpacked from its beginning each time it is read."""
    found = ((member.name, member.size, 0) for _, member in members(path))
    with closing(Listing(f"tar {stamp(path)}", found)) as listing:
        count, digest = listing.count, listing.digest

    def items(start: int) -> Iterator[tuple[str, Content]]:
        for archive, member in islice(members(path), start, None):
            yield member.name, read_packed(archive, member)

    return Stream(count, digest, items)


def members(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The images of a tar file, compressed or not.

    Raises:
        JobError: it is damaged, cut short, or no tar file.
    """
    unpack = UNPACK[packing(path)]
    try:
        with (
            unpack(path, "rb") as file,
            tarfile.open(fileobj=file, mode="r:" if unpack is open else "r|") as archive,
        ):
            for member in archive:
                if member.isreg() and is_shown(member.name):
                    yield archive, member
                archive.members.clear()  # type: ignore[attr-defined] # or it would remember every one
            check_end(file, archive, unpack is open)
    except DAMAGED as error:
        raise JobError(f"{path} can't be read as a tar file: {error}") from error


def check_end(file: IO[bytes], archive: tarfile.TarFile, plain: bool) -> None:
    """Raise unless the file goes on to its end: tarfile itself takes one that is cut for shorter.

    Raises:
        EOFError: it was cut short.
    """
    if not plain:
        while file.read(1 << 20):  # the compression notices
            pass
        return
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("the end mark is missing: it was cut short")


def packing(path: Path) -> bytes:
    """Which of UNPACK a file is compressed with, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(6)
    return next((magic for magic in UNPACK if magic and start.startswith(magic)), b"")


UNPACK: dict[bytes, Callable[..., Any]] = {
    b"": open,
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


def read_packed(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Content:
    """The member that a stream has just come to."""
    if member.size > LARGEST_FILE:
        return too_large(member.size, LARGEST_FILE)
    file = archive.extractfile(member)
    return file.read() if file else b""
