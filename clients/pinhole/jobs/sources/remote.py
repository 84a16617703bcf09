"""Files at URLs, through fsspec: S3, GCS, Azure, HTTP and whatever else it has a back end for."""

import io
import time
from collections.abc import Callable
from typing import IO, Any, TypeVar

from pinhole.address import without_credentials
from pinhole.jobs.errors import JobError, too_large, unreadable
from pinhole.jobs.sources import LARGEST_FILE, Content, stamp_of

# The size in bytes that is assumed for a file whose size would take a request of its own to learn.
ASSUMED_SIZE = 256 << 10

# By which of its details a file's stamp is made, best first: no two back ends call them the same.
CHANGES = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")

PAUSES_S = (0.5, 2.0)  # Before the second and the third try to read a file.
BLOCK_BYTES = 4 << 20  # Of an archive or table, so many bytes are read at a time.
T = TypeVar("T")
FINAL = (FileNotFoundError, IsADirectoryError, PermissionError)  # Another try ends the same.


class BackEndFailed(OSError):
    """A back end has raised something else than an OSError, which is the cause of this."""


def asked(ask: Callable[[], T]) -> T:
    """What a back end answers.

    Raises:
        OSError: the back end raised it, or BackEndFailed for whatever else it raised: botocore,
            aiohttp and others have errors of their own, and not all of them are installed here.
    """
    try:
        return ask()
    except OSError:
        raise
    except Exception as error:
        raise BackEndFailed(0, type(error).__name__) from error


def list_remote(fs: Any, folder: str, depth: int | None) -> dict[str, dict[str, Any]]:
    """The details of the files in a folder by their names below it; depth 1 is its own files.

    Raises:
        JobError: it can't be listed.
    """
    try:
        found = asked(lambda: fs.find(folder, maxdepth=depth, detail=True))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise JobError(f"{without_credentials(folder)} can't be listed: {reason(error)}") from error
    start = folder if folder.endswith("/") or not folder else f"{folder}/"
    return {
        name.removeprefix(start): each
        for name, each in found.items()
        if each.get("type") != "directory"
    }


def remote_details(fs: Any, path: str) -> dict[str, Any] | None:
    """What the file system tells about a file or folder; None if there is none.

    Raises:
        JobError: the file system doesn't answer.
    """
    try:
        details: dict[str, Any] = asked(lambda: fs.info(path))
    except OSError as error:
        cause = cause_of(error)
        if isinstance(cause, FileNotFoundError):
            return None
        raise JobError(f"{without_credentials(path)} can't be opened: {reason(cause)}") from error
    return details


def cause_of(error: OSError) -> OSError:
    """Why a file wasn't found: fsspec finds nothing on a web server that can't be reached."""
    raised = error.__cause__ if isinstance(error, BackEndFailed) else error
    return raised.__cause__ if raised and isinstance(raised.__cause__, OSError) else error


def remote_size(details: dict[str, Any]) -> int:
    """Bytes in a file, or ASSUMED_SIZE if its file system doesn't tell."""
    return int(details.get("size") or ASSUMED_SIZE)


def remote_stamp(details: dict[str, Any]) -> str:
    """A file's stamp; "" if its file system doesn't tell when it was changed."""
    changes = (details[key] for key in CHANGES if details.get(key))
    return next((stamp_of(remote_size(details), change) for change in changes), "")


def open_url(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        ImportError: fsspec isn't installed.
        JobError: fsspec doesn't know the protocol, or can't open it.
    """
    import fsspec

    try:
        fs, path = asked(lambda: fsspec.core.url_to_fs(url))
    except OSError as error:
        raise JobError(f"{without_credentials(url)} can't be opened: {reason(error)}") from error
    return fs, path


def reason(error: OSError) -> str:
    """What went wrong, on one line, and what to install if it is a missing package."""
    raised = (isinstance(error, BackEndFailed) and error.__cause__) or error
    lines = str(raised).strip().splitlines() or [type(raised).__name__]
    missing = getattr(raised.__cause__ or raised, "name", None)
    if not isinstance(raised, ImportError) or not missing:
        return lines[0]
    return f"{lines[0]}: pip install {missing.split('.')[0]}"


def read_remote(fs: Any, path: str) -> Content:
    """The content of a file in an fsspec file system, or why it can't be read after three tries."""

    def read() -> bytes:
        with fs.open(path, "rb") as file:
            data: bytes = file.read(LARGEST_FILE + 1)
            return data

    try:
        data = read_persistently(read)
    except OSError as error:
        return unreadable(error)
    return data if len(data) <= LARGEST_FILE else too_large(len(data), LARGEST_FILE)


def stamp_again(fs: Any, path: str) -> str:
    """The stamp of a file that was there before.

    Raises:
        OSError: it is gone, or its file system doesn't answer in three tries.
    """

    def ask() -> str:
        try:
            return remote_stamp(asked(lambda: fs.info(path)))
        except FileNotFoundError as error:
            raise OSError(0, reason(cause_of(error))) from error

    return read_persistently(ask)


def read_persistently(read: Callable[[], T]) -> T:
    """What a function reads from a back end in three tries.

    Raises:
        OSError: the last try's; see ``asked``.
    """
    for pause_s in PAUSES_S:
        try:
            return asked(read)
        except FINAL:
            raise
        except OSError:
            time.sleep(pause_s)
    return asked(read)


def open_remote(fs: Any, path: str) -> IO[bytes]:
    """Open a file in an fsspec file system to read from any offset.

    Raises:
        OSError: the file system doesn't tell the file's size.
        JobError: on reading, a part can't be had. What takes a bad archive for several damaged
            images would take an OSError for one more damage.
    """
    size = (remote_details(fs, path) or {}).get("size")
    if size is None:
        raise OSError(0, "its size isn't told")
    return io.BufferedReader(RemoteFile(fs, path, size), BLOCK_BYTES)


class RemoteFile(io.RawIOBase):
    """A file in an fsspec file system, of which only the wanted parts are read, in three tries."""

    def __init__(self, fs: Any, path: str, size: int) -> None:
        self._fs, self._path, self._size, self._position = fs, path, size, 0

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def seekable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See io.RawIOBase."""
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = starts[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase."""
        data = self._read(self._position, min(self._position + len(buffer), self._size))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, start: int, end: int) -> bytes:
        """The bytes between two offsets."""
        if start >= end:
            return b""
        try:
            data: bytes = read_persistently(
                lambda: self._fs.cat_file(self._path, start=start, end=end)
            )
        except OSError as error:
            raise self._fault(reason(cause_of(error))) from error
        if len(data) == self._size:  # Some web servers send no parts of files.
            data = data[start:end]
        if len(data) != end - start:
            raise self._fault("it has changed, or a part of it wasn't sent")
        return data

    def _fault(self, why: str) -> JobError:
        return JobError(f"{without_credentials(self._path)} can't be read: {why}")
