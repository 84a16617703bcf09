"""Files that the commands write: whole or not at all, and never over what isn't their own.

Errors are OSErrors that name the file, which the command line shows on one line.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO
from uuid import uuid4

START_BYTES = 4096  # A file shows within its first bytes which program has written it.


def local_path(given: str) -> Path:
    """The path of a file or folder to write.

    A leading ``~`` is the home folder, quoted or not. A link to a file is followed: the file is
    replaced, not the link.

    Raises:
        OSError: it is a URL. It isn't shown, since it may hold a password.
    """
    if "://" in given:
        scheme = given.partition("://")[0]
        advice = "OUT can't be a URL: write to a file or folder of this host, and copy it there"
        raise OSError(errno.EINVAL, advice, f"{scheme}://...")
    path = Path(os.path.expanduser(given))  # noqa: PTH111 - Path.expanduser fails for ~nobody/x
    if path.is_symlink() and (path.is_file() or not path.exists()):
        return Path(os.path.realpath(path))  # Path.resolve fails for a link to itself.
    return path


def file_key(path: str | Path) -> tuple[int, int] | None:
    """What is the same for all names and links of a file or folder; None if nothing is there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - called for every input of a job
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def check_replaceable(path: Path, is_own: Callable[[bytes], bool], overwrite: bool) -> None:
    """Refuse to replace a file that the command hasn't written.

    Args:
        path: about to be written; an empty file there may be replaced by anyone.
        is_own: tells by the first START_BYTES of a file whether the command has written it.
        overwrite: replace any file.

    Raises:
        OSError: the file isn't the command's own, or can't be read.
    """
    if overwrite or not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    if start and not is_own(start):
        advice = "this file isn't an earlier result; --overwrite replaces it"
        raise OSError(errno.EEXIST, advice, os.fspath(path))


def write_whole(
    path: Path, write: Callable[[IO[bytes]], object], folder: Path | None = None
) -> None:
    """Write a file under a temporary name, and rename it to ``path``.

    What is no file, /dev/stdout for example, is written to as it is.

    Args:
        path: of the file; a file that is there is replaced, or untouched if this fails.
        write: writes the content.
        folder: for the temporary file, on the same file system; None is the file's own folder.

    Raises:
        OSError: there is no room, or no permission.
    """
    partial = (folder or path.parent) / f".{uuid4().hex}.partial"
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                write(file)
            return
        with partial.open("wb") as file:
            write(file)
        partial.replace(path)
    except OSError as error:
        error.filename = os.fspath(path)  # Not the temporary name, which the user doesn't know.
        raise
    finally:
        partial.unlink(missing_ok=True)
