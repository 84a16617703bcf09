"""Finds out what kind of source the SOURCE on the command line is."""

import glob
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

from pinhole.jobs.errors import JobError
from pinhole.jobs.sources import Source, printable
from pinhole.jobs.sources.archives import tar_source, zip_source
from pinhole.jobs.sources.arrays import idx_source, is_idx, npy_source
from pinhole.jobs.sources.files import Files, by_name, list_names, read_named
from pinhole.jobs.sources.listing import Listing
from pinhole.jobs.sources.npz import is_npz, npz_source
from pinhole.jobs.sources.patterns import EVERYTHING, expand_braces, split_pattern
from pinhole.jobs.sources.places import Place, find_place
from pinhole.jobs.sources.several import Several
from pinhole.jobs.sources.suffixes import TARS
from pinhole.jobs.sources.tables import parquet_source
from pinhole.jobs.sources.walking import Choice, Found, Walk, size_of
from serve.bundle.pictures.kinds import SUFFIXES

LISTS = (".txt", ".list", ".lst")
GZIP = b"\x1f\x8b"
BEGINNING_BYTES = 512


def open_source(given: str, column: str | None = None) -> Source:
    """List a source.

    Args:
        given: a folder, a pattern, a zip or tar file, a .npy, .npz, IDX or Parquet file, a text
            file that lists files, or an fsspec URL. A single file's kind is told by its first
            bytes; of many files, those are opened whose suffix says that they hold images.
        column: which column of a Parquet file, or which array of a .npz file, holds the images.

    Raises:
        JobError: it is none of these, can't be read, or holds no images.
    """
    source = find_source(given, column)
    if source.count == 0:
        source.close()
        others = f"; {source.left_out}" if source.left_out else ""
        raise JobError(f"{given} holds no image files{others}")
    return source


def find_source(given: str, column: str | None) -> Source:
    """The source that ``given`` names, with or without images in it."""
    place = find_place(given)
    kind = place.kind()
    if kind == "file":
        return file_source(place, column)
    choice = Choice()
    if kind == "folder":
        walk = Walk(place, "", EVERYTHING, True, choice)
        return gather(walk.files(), choice, lambda name: place.below(name), column, str(place))
    places = [Place(path, place.fs) for path in expand_braces(place.path)]
    if not any(glob.has_magic(each.path) or each.kind() for each in places):
        raise JobError(f"{given} is not a folder, file, pattern or URL that can be found")
    found = chain.from_iterable(matching(each, choice) for each in places)
    return gather(found, choice, lambda name: Place(name, place.fs), column, str(place))


def matching(place: Place, choice: Choice) -> Iterator[Found]:
    """Yield the files that a pattern matches, or that a name names, which may be a folder's."""
    path = place.path.replace(os.sep, "/")
    root, pattern = split_pattern(path, lambda name: bool(Place(name, place.fs).kind()))
    if pattern:
        yield from Walk(Place(root, place.fs), root, pattern, False, choice).files()
    elif place.kind() == "folder":
        yield from Walk(place, f"{path}/", EVERYTHING, True, choice).files()
    elif choice.takes(path, by_suffix=False):
        yield path, *size_of(path, elsewhere=place.fs is not None)


def gather(
    found: Iterable[Found],
    choice: Choice,
    place_of: Callable[[str], Place],
    column: str | None,
    stamp: str,
) -> Source:
    """The source of some files that have been chosen, and of what others of them hold.

    Args:
        found: the files, as they are chosen.
        choice: chooses.
        place_of: where the file of a name lies.
        column: see open_source.
        stamp: tells the source from another with the same files.
    """

    def collection(name: str) -> Source:
        return file_source(place_of(name), column, alone=False)

    listing = Listing(f"files {stamp}", ((name, size, 0, mark) for name, size, mark in found))
    files = Files(listing, by_name(partial(read_named, place_of)), choice.left_out)
    if not choice.collections:
        return files
    names = ((printable(name), partial(collection, name)) for name in choice.collections)
    several = Several(files, names)
    # What was made for something else, such as this job's own result, changes nothing.
    return several if several.count > files.count else files


def file_source(place: Place, column: str | None, alone: bool = True) -> Source:
    """The source that is one file.

    Args:
        place: the file.
        column: see open_source.
        alone: whether it is all of SOURCE.

    Raises:
        JobError: the file can't be read, or is of no kind that can be a source.
    """
    name = place.path.lower()
    if place.fs is not None and name.endswith(SUFFIXES):
        return one_file(place)
    try:
        start = beginning(place)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # The second is of an empty file.
            return npz_source(place, column) if is_npz(place, start) else zip_source(place)
        if start.startswith(b"\x93NUMPY"):
            return npy_source(place)
        if start.startswith(b"PAR1"):
            return parquet_source(place, column, alone)
        if is_idx(start):
            return idx_source(place)
        if name.endswith(LISTS):
            return list_source(place, column)
        if name.endswith(SUFFIXES):
            return one_file(place)
        if name.endswith(TARS) or is_tar(place):
            return tar_source(place)
    except OSError as error:
        raise JobError(f"{place} can't be read: {error.strerror or error}") from error
    if place.fs is not None and alone:
        return one_file(place)
    raise JobError(
        f"{place} is no source: not zip, tar (or its .gz, .bz2 or .xz), .npy, .npz, IDX, Parquet, "
        f"nor a list ({', '.join(LISTS)})"
    )


def one_file(place: Place) -> Source:
    """The source that is one image."""
    found = [(place.path, *size_of(place.path, elsewhere=place.fs is not None))]
    return gather(found, Choice(), lambda name: Place(name, place.fs), None, str(place))


def list_source(place: Place, column: str | None) -> Source:
    """The files that a text file names; see list_names.

    Relative names are relative to the command's working directory. A line may be a URL.
    """
    choice = Choice()
    found = (
        (name, *size_of(name, elsewhere="://" in name))
        for name in list_names(place)
        if choice.takes(name, by_suffix=False)
    )
    return gather(found, choice, find_place, column, str(place))


def is_tar(place: Place) -> bool:
    """Whether a file is a tar file, compressed or not."""
    try:
        with place.open() as file:
            return tarfile.is_tarfile(file)
    except (EOFError, zlib.error, lzma.LZMAError):
        return False


def beginning(place: Place) -> bytes:
    """The first bytes of a file, decompressed if it is a gzip file."""
    with place.open() as file:
        start = file.read(BEGINNING_BYTES)
        if not start.startswith(GZIP):
            return start
        file.seek(0)
        try:
            return gzip.open(file).read(BEGINNING_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return start
