"""Finds out what kind of source the SOURCE on the command line is."""

import glob
import gzip
import lzma
import tarfile
import zlib
from pathlib import Path

from pinhole.jobs.errors import JobError
from pinhole.jobs.sources import Source
from pinhole.jobs.sources.archives import tar_source, zip_source
from pinhole.jobs.sources.arrays import idx_source, is_idx, npy_source
from pinhole.jobs.sources.files import (
    folder_source,
    glob_source,
    list_source,
    url_source,
)
from pinhole.jobs.sources.tables import parquet_source
from serve.bundle.pictures.kinds import SUFFIXES

LISTS = (".txt", ".list", ".lst")
GZIP = b"\x1f\x8b"


def open_source(given: str, column: str | None = None) -> Source:
    """List a source.

    Args:
        given: a folder, a glob, a zip or tar file, a .npy, IDX or Parquet file, a text file that
            lists files, or an fsspec URL. A file's kind is told by its first bytes, not its name.
        column: which column of a Parquet file holds the images.

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
    path = Path(given)
    if "://" in given:
        return url_source(given)
    if path.is_dir():
        return folder_source(path)
    if path.is_file():
        return file_source(path, column)
    if glob.has_magic(given):
        return glob_source(given)
    raise JobError(f"{given} is not a folder, file, pattern or URL that can be found")


def file_source(path: Path, column: str | None) -> Source:
    """The source that is one file.

    Raises:
        JobError: the file can't be read, or is of no kind that can be a source.
    """
    try:
        start = beginning(path)
    except OSError as error:
        raise JobError(f"{path} can't be read: {error.strerror}") from error
    if start.startswith(b"PK\x03\x04"):
        return zip_source(path)
    if start.startswith(b"\x93NUMPY"):
        return npy_source(path)
    if start.startswith(b"PAR1"):
        return parquet_source(path, column)
    if is_idx(start):
        return idx_source(path)
    if path.suffix.lower() in LISTS:
        return list_source(path)
    if path.suffix.lower() in SUFFIXES:
        return glob_source(glob.escape(str(path)))
    if is_tar(path):
        return tar_source(path)
    raise JobError(
        f"{path} is no source: not zip, tar, .npy, IDX, Parquet, nor a list ({', '.join(LISTS)})"
    )


def is_tar(path: Path) -> bool:
    """Whether a file is a tar file, compressed or not."""
    try:
        return tarfile.is_tarfile(path)
    except (EOFError, zlib.error, lzma.LZMAError):
        return False


def beginning(path: Path) -> bytes:
    """The first bytes of a file, decompressed if it is a gzip file."""
    with path.open("rb") as file:
        start = file.read(8)
    if not start.startswith(GZIP):
        return start
    try:
        with gzip.open(path) as packed:
            return packed.read(8)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return start
