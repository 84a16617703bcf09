"""Sources in one file: zip, and tar, compressed or not."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from typing import IO, Any, cast

from pinhole.jobs.errors import Fault, JobError, too_large, unreadable
from pinhole.jobs.sources import LARGEST_FILE, Content, Stream
from pinhole.jobs.sources.files import Entry, Files, by_name
from pinhole.jobs.sources.listing import Listing
from pinhole.jobs.sources.places import Place
from pinhole.jobs.sources.suffixes import LeftOut, is_image

DAMAGED = (lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError)

ENCRYPTED = 1  # The bit of a zip member's flags that says so.

# Ways to compress a zip member that aren't read (APPNOTE.TXT 4.4.5). zipfile doesn't know most of
# them, and unpacks bzip2 and LZMA without a limit: 113 bytes of bzip2 become 100 MB.
COMPRESSIONS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd"}
READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# typeshed doesn't know these exceptions.
END_MARK = tarfile.EOFHeaderError  # type: ignore[attr-defined]
END_OF_FILE = tarfile.EmptyHeaderError  # type: ignore[attr-defined]

# Where the data of a sparse tar member lie in the file that it becomes: (offset, bytes) of each.
Segments = list[tuple[int, int]]


def zip_source(place: Place) -> Files:
    """The images in a zip file, in the file's order. Its directory is held in memory.

    Raises:
        JobError: the file is damaged.
    """
    opened, check = ExitStack(), place.checker()
    try:
        archive = opened.enter_context(zipfile.ZipFile(opened.enter_context(place.open())))
    except (*DAMAGED, NotImplementedError) as error:
        opened.close()
        raise JobError(f"{place} can't be read as a zip file: {error}") from error
    left_out, members = LeftOut(), dict[str, zipfile.ZipInfo]()
    for member in archive.infolist():
        if is_image(name := member.filename) and not member.is_dir():
            if name in members:
                left_out.add(name, "named twice")
            members[name] = member
        elif not member.is_dir():
            left_out.add(name)

    read_members = by_name(partial(read_member, archive, members))

    def load(run: list[Entry]) -> Iterator[Content]:
        yield from read_members(run)
        check()  # A member that looks damaged may be another file's.

    sizes = ((each.filename, each.file_size, 0) for each in members.values())
    return Files(Listing(f"zip {place.stamp()}", sizes), load, left_out, opened)


def read_member(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str
) -> Content:
    """The content of a zip file's member; no more of it than it declares is unpacked."""
    member = members[name]
    if member.file_size > LARGEST_FILE:
        return too_large(member.file_size, LARGEST_FILE)
    if member.flag_bits & ENCRYPTED:
        return Fault("Unreadable", "can't be read: it is encrypted")
    if member.compress_type not in READ:
        kind = COMPRESSIONS.get(member.compress_type, f"method {member.compress_type}")
        return Fault("Unreadable", f"can't be read: compressed by {kind}; only Deflate is read")
    try:
        with archive.open(member) as file:
            return file.read(LARGEST_FILE)  # Without a limit, Deflate is unpacked to its end.
    except (*DAMAGED, NotImplementedError):
        return Fault("Unreadable", "can't be read: damaged in the zip file")


def tar_source(place: Place) -> Files | Stream:
    """The images in a tar file, in the file's order.

    Raises:
        JobError: the file is damaged.
    """
    return packed_tar_source(place) if packing(place) else plain_tar_source(place)


def plain_tar_source(place: Place) -> Files:
    """The images in a tar file that isn't compressed, read from their offsets."""
    check, left_out, sparse = place.checker(), LeftOut(), dict[int, Segments]()

    def images() -> Iterator[tuple[str, int, int]]:
        for _, member in members(place, left_out):
            if (segments := segments_of(member)) is not None:
                sparse[member.offset_data] = segments
            yield member.name, member.size, member.offset_data

    def load(run: list[Entry]) -> Iterator[Content]:
        check()
        with place.open() as file:
            for _, _, length, offset, _ in run:
                yield read_span(file, offset, length, sparse.get(offset))
        check()

    return Files(Listing(f"tar {place.stamp()}", images()), load, left_out)


def segments_of(member: tarfile.TarInfo) -> Segments | None:
    """Where a sparse member's data lie; None of any other member."""
    return cast("Segments | None", member.sparse)  # typeshed takes them for bytes.


def read_span(file: IO[bytes], offset: int, length: int, sparse: Segments | None) -> Content:
    """A member of ``length`` bytes whose data are at an offset in a tar file."""
    if length > LARGEST_FILE:
        return too_large(length, LARGEST_FILE)
    data = bytearray(length)
    try:
        file.seek(offset)
        for start, size in [(0, length)] if sparse is None else sparse:
            part = file.read(max(0, min(size, length)))
            if len(part) != size or not 0 <= start <= length - size:
                return Fault("Unreadable", "can't be read: damaged in the tar file")
            data[start : start + size] = part
    except OSError as error:
        return unreadable(error)
    return bytes(data)


def packed_tar_source(place: Place) -> Stream:
    """The images in a compressed tar file, unpacked from its beginning for each reading."""
    left_out = LeftOut()
    found = ((member.name, member.size, 0) for _, member in members(place, left_out))
    with closing(Listing(f"tar {place.stamp()}", found)) as listing:
        count, digest = listing.count, listing.digest

    def items(start: int) -> Iterator[tuple[str, Content]]:
        for file, member in islice(members(place, LeftOut()), start, None):
            yield member.name, read_span(file, member.offset_data, member.size, segments_of(member))

    return Stream(count, digest, items, place.checker(), left_out)


def members(place: Place, left_out: LeftOut) -> Iterator[tuple[IO[bytes], tarfile.TarInfo]]:
    """Yield (unpacked file, member) for each image in a tar file, and count the rest.

    Raises:
        JobError: the file is damaged, cut short, or no tar file.
    """
    unpack = UNPACK[packing(place)]
    try:
        with place.open() as packed, unpack(packed) as file, Tar(fileobj=file) as archive:
            while (member := archive.next()) is not None:
                if member.isreg() and is_image(member.name):
                    yield file, member
                elif not member.isdir():
                    left_out.add(member.name, "" if member.isreg() else "linked")
                # Otherwise tarfile would keep every member in memory.
                archive.members.clear()  # type: ignore[attr-defined]
    except DAMAGED as error:
        raise JobError(f"{place} can't be read as a tar file: {error}") from error


class Member(tarfile.TarInfo):
    """A member whose header is checked: tarfile takes a damaged one for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: "Tar") -> "Member":  # type: ignore[override]
        """Read the next header.

        Raises:
            tarfile.ReadError: it is damaged, or the file ends without an end mark.
        """
        try:
            member = super().fromtarfile(archive)
        except END_MARK:
            archive.ended = True
            raise
        except END_OF_FILE:
            if not archive.ended:
                raise tarfile.ReadError("the end mark is missing: it was cut short") from None
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        archive.ended = False
        return member


class Tar(tarfile.TarFile):
    """A tar file and others that follow its end mark, as after ``cat a.tar b.tar``."""

    tarinfo = Member
    ignore_zeros = True
    ended = False  # Whether an end mark was read last.


def packing(place: Place) -> bytes:
    """The key in UNPACK of the file's compression, by its first bytes."""
    with place.open() as file:
        start = file.read(6)
    return next((magic for magic in UNPACK if magic and start.startswith(magic)), b"")


# First bytes of a file → what opens a file that is compressed so.
UNPACK: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"": lambda file: file,
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
