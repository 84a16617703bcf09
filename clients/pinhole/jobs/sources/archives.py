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
from pinhole.jobs.sources.files import Files
from pinhole.jobs.sources.listing import Listing
from pinhole.jobs.sources.suffixes import LeftOut, is_image

DAMAGED = (lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError)


def zip_source(path: Path) -> Files:
    """The images in a zip file, in the file's order. Its directory is held in memory.

    Raises:
        JobError: the file is damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise JobError(f"{path} can't be read as a zip file: {error}") from error
    left_out, members = LeftOut(), dict[str, zipfile.ZipInfo]()
    for member in archive.infolist():
        if is_image(name := member.filename) and not member.is_dir():
            if name in members:
                left_out.add(name, "named twice")
            members[name] = member
        elif not member.is_dir():
            left_out.add(name)
    sizes = ((each.filename, each.file_size, 0) for each in members.values())
    listing = Listing(f"zip {stamp(path)}", sizes)
    return Files(listing, lambda name: read_member(archive, members[name]), left_out, archive)


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Content:
    """The content of a zip file's member.

    A member that unpacks to more than it declares is read up to just over the limit.
    """
    if member.file_size > LARGEST_FILE:
        return too_large(member.file_size, LARGEST_FILE)
    try:
        with archive.open(member) as file:
            return file.read(LARGEST_FILE + 1)
    except RuntimeError:  # zipfile raises this for a member that is encrypted.
        return Fault("Unreadable", "can't be read: it is encrypted")
    except (*DAMAGED, NotImplementedError):
        return Fault("Unreadable", "can't be read: damaged in the zip file")


def tar_source(path: Path) -> "PlainTar | Stream":
    """The images in a tar file, in the file's order.

    Raises:
        JobError: the file is damaged.
    """
    return packed_tar_source(path) if packing(path) else PlainTar(path)


class PlainTar:
    """A tar file that isn't compressed: members are read from their offsets, in any order."""

    def __init__(self, path: Path) -> None:
        self._path, self._stamp, self.left_out = path, stamp(path), LeftOut()
        found = members(path, self.left_out)
        self._listing = Listing(
            f"tar {self._stamp}",
            ((member.name, member.size, member.offset_data) for _, member in found),
        )
        self.count, self.digest = self._listing.count, self._listing.digest

    def chunks(self, numbers: Iterable[int], size: int) -> Iterator[Chunk]:
        """See Source."""
        for run in cut(self._listing.entries(numbers), size, lambda entry: entry[2]):
            spans = [(offset, length) for _, _, length, offset in run]
            names = [printable(name) for _, name, _, _ in run]
            yield Chunk([number for number, _, _, _ in run], names, self._loader(spans))

    def close(self) -> None:
        """See Source."""
        self._listing.close()

    def _loader(self, spans: list[tuple[int, int]]) -> Callable[[], Iterator[Content]]:
        """A function that reads these (offset, length) spans when it is called."""

        def load() -> Iterator[Content]:
            check_stamp(self._path, self._stamp)
            with self._path.open("rb") as file:
                yield from (read_span(file, offset, length) for offset, length in spans)

        return load


def read_span(file: IO[bytes], offset: int, length: int) -> Content:
    """``length`` bytes from an offset in a file."""
    if length > LARGEST_FILE:
        return too_large(length, LARGEST_FILE)
    try:
        data = os.pread(file.fileno(), length, offset)
    except OSError as error:
        return unreadable(error)
    return (
        data
        if len(data) == length
        else Fault("Unreadable", "can't be read: the tar file ends before it")
    )


def packed_tar_source(path: Path) -> Stream:
    """The images in a compressed tar file, unpacked from its beginning for each reading."""
    left_out = LeftOut()
    found = ((member.name, member.size, 0) for _, member in members(path, left_out))
    with closing(Listing(f"tar {stamp(path)}", found)) as listing:
        count, digest = listing.count, listing.digest

    def items(start: int) -> Iterator[tuple[str, Content]]:
        for archive, member in islice(members(path, LeftOut()), start, None):
            yield member.name, read_packed(archive, member)

    return Stream(count, digest, items, left_out)


def members(path: Path, left_out: LeftOut) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield (archive, member) for each image in a tar file, compressed or not; count the rest.

    Raises:
        JobError: the file is damaged, cut short, or no tar file.
    """
    unpack = UNPACK[packing(path)]
    try:
        with (
            unpack(path, "rb") as file,
            tarfile.open(fileobj=file, mode="r:" if unpack is open else "r|") as archive,
        ):
            for member in archive:
                if member.isreg() and is_image(member.name):
                    yield archive, member
                elif not member.isdir():
                    left_out.add(member.name, "" if member.isreg() else "linked")
                # Otherwise tarfile would keep every member in memory.
                archive.members.clear()  # type: ignore[attr-defined]
            check_end(file, archive, unpack is open)
    except DAMAGED as error:
        raise JobError(f"{path} can't be read as a tar file: {error}") from error


def check_end(file: IO[bytes], archive: tarfile.TarFile, plain: bool) -> None:
    """Check that the file goes on to its end mark.

    tarfile itself doesn't: it reads a file that was cut between two members as a shorter archive.

    Raises:
        EOFError: the file was cut short.
    """
    if not plain:
        while file.read(1 << 20):  # Decompression raises where the file was cut short.
            pass
        return
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("the end mark is missing: it was cut short")


def packing(path: Path) -> bytes:
    """The key in UNPACK of the file's compression, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(6)
    return next((magic for magic in UNPACK if magic and start.startswith(magic)), b"")


# First bytes of a file → what opens a file that is compressed so.
UNPACK: dict[bytes, Callable[..., Any]] = {
    b"": open,
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


def read_packed(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Content:
    """The content of the member that the reading of a compressed archive has just come to."""
    if member.size > LARGEST_FILE:
        return too_large(member.size, LARGEST_FILE)
    file = archive.extractfile(member)
    return file.read() if file else b""
