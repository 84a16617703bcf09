"""A file or folder of this host, or of an fsspec file system."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pinhole.address import without_credentials
from pinhole.jobs.errors import JobError
from pinhole.jobs.sources import stamp_of
from pinhole.jobs.sources.remote import (
    open_remote,
    open_url,
    remote_details,
    remote_stamp,
    stamp_again,
)

# How files are opened, without waiting for a pipe. Windows lacks the first two flags, and only
# Windows has the third.
OPEN = os.O_RDONLY
for flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    OPEN |= getattr(os, flag, 0)


@dataclass(frozen=True)
class Place:
    """Where a source lies.

    Attributes:
        path: its name, in the file system.
        fs: the fsspec file system; None is this host's.
    """

    path: str
    fs: Any = None

    def __str__(self) -> str:
        """Its name, for messages."""
        return self.path

    def beside(self, name: str) -> "Place":
        """What has this name in the folder that this file lies in."""
        if self.fs is None:
            return Place(os.path.join(os.path.dirname(self.path), name))  # noqa: PTH118, PTH120
        return Place(f"{self.path.rpartition('/')[0]}/{name}", self.fs)

    def below(self, name: str) -> "Place":
        """What has this name below this folder."""
        return Place(f"{self.path.rstrip('/')}/{name}", self.fs)

    def kind(self) -> str:
        """What is there: ``file``, ``folder``, or "" for nothing.

        Raises:
            JobError: the file system can't tell.
        """
        if self.fs is None:
            if os.path.isdir(self.path):  # noqa: PTH112 - a path may be empty
                return "folder"
            return "file" if os.path.isfile(self.path) else ""  # noqa: PTH113
        details = remote_details(self.fs, self.path)
        if details is None:
            return ""
        # A web server's page about a folder is the only sign that the folder is there.
        is_folder = details.get("type") == "directory" or details.get("mimetype") == "text/html"
        return "folder" if is_folder else "file"

    def open(self) -> IO[bytes]:
        """Open the file to read from any offset.

        Raises:
            OSError: it can't be opened; of a file system elsewhere, reading may raise it instead.
        """
        if self.fs is None:
            return open(self.path, "rb", opener=lambda path, _: os.open(path, OPEN))
        return open_remote(self.fs, self.path)

    def stamp(self) -> str:
        """A text that changes when the file is replaced or written to."""
        if self.fs is None:
            status = Path(self.path).stat()
            changes = stamp_of(status.st_size, status.st_mtime_ns)
            return f"{Path(self.path).resolve()} {changes}"
        return f"{self.path} {remote_stamp(remote_details(self.fs, self.path) or {})}"

    def checker(self) -> Callable[[], None]:
        """A function that raises a JobError if the file has changed since now.

        Its parts would be read from the wrong places.
        """
        before, name = self.stamp(), without_credentials(str(self))

        def check() -> None:
            try:
                if self.fs is None:
                    now = self.stamp()
                else:
                    now = f"{self.path} {stamp_again(self.fs, self.path)}"
            except OSError as error:
                raise JobError(f"{name} can't be read any more: {error.strerror}") from error
            if now != before:
                raise JobError(
                    f"{name} has changed since the job began: replaced, grown or cut short"
                )

        return check


def find_place(given: str) -> Place:
    """The place that a path or URL names.

    Raises:
        ImportError: fsspec isn't installed, and it is needed.
        JobError: fsspec can't open the URL.
    """
    if "://" not in given:
        return Place(given)
    from fsspec.implementations.local import LocalFileSystem

    fs, path = open_url(given)
    return Place(path, None if isinstance(fs, LocalFileSystem) else fs)
