"""The one walk through folders, here and at URLs, and what of it is read."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pinhole.jobs.errors import JobError
from pinhole.jobs.sources import stamp_of
from pinhole.jobs.sources.patterns import Pattern
from pinhole.jobs.sources.places import Place
from pinhole.jobs.sources.remote import ASSUMED_SIZE, list_remote, remote_size, remote_stamp
from pinhole.jobs.sources.suffixes import LeftOut, is_collection
from serve.bundle.pictures.kinds import SUFFIXES

Found = tuple[str, int, str]  # A file's name, its bytes, and its stamp.


class Choice:
    """What of the files that a walk meets is an image, and what holds images.

    Attributes:
        left_out: the files that are neither.
        collections: names of the files that hold images.
    """

    def __init__(self) -> None:
        self.left_out, self.collections = LeftOut(), list[str]()

    def takes(
        self, name: str, by_suffix: bool, is_folder: bool = False, is_link: bool = False
    ) -> bool:
        """Whether a file is to be read as an image; otherwise it is noted.

        Args:
            name: of the file.
            by_suffix: leave it out unless its suffix is an image's; a pattern names files of all
                kinds.
            is_folder: it is a folder. If it is named like an image, the error is worth a row.
            is_link: it is a link.
        """
        if name.lower().endswith(SUFFIXES):
            return True
        if is_folder and not (is_link and by_suffix):
            return False
        if is_collection(name) and not is_folder:
            self.collections.append(name)
            return False
        if by_suffix:
            self.left_out.add(name, "linked" if is_link else "")
        return not by_suffix


@dataclass(frozen=True)
class Walk:
    """A walk through a folder and the folders in it.

    Attributes:
        folder: where it begins.
        start: stands before the names that it finds.
        pattern: of the names below the folder.
        by_suffix: see Choice.
        choice: what is read.
    """

    folder: Place
    start: str
    pattern: Pattern
    by_suffix: bool
    choice: Choice

    def files(self) -> Iterator[Found]:
        """Yield the files that match and are chosen, folder by folder, sorted.

        Raises:
            JobError: the folder can't be listed.
        """
        return self._files_here() if self.folder.fs is None else self._remote_files()

    def _remote_files(self) -> Iterator[Found]:
        """See files. A store of objects lists them faster as a whole than folder by folder."""
        files = list_remote(self.folder.fs, self.folder.path, self.pattern.depth)
        for below in sorted(files, key=lambda name: name.split("/")):
            name, details = self.start + below, files[below]
            if self.pattern.fits(below) and self.choice.takes(name, self.by_suffix):
                yield name, remote_size(details), remote_stamp(details)

    def _files_here(self) -> Iterator[Found]:
        """See files. A folder that can't be listed is yielded too, so that its row says why."""
        root, pattern, start = self.folder.path, self.pattern, self.start
        try:
            levels = [("", pattern.start, iter(entries(root)))]
        except FileNotFoundError:
            return
        except OSError as error:
            raise JobError(f"{root} can't be listed: {error.strerror}") from error
        while levels:  # The folders that have been entered: they may be too many for a recursion.
            below, places, rest = levels[-1]
            if (entry := next(rest, None)) is None:
                levels.pop()
                continue
            name, *kind = entry
            name, reached = below + name, pattern.step(places, name, all(kind))
            if pattern.matches(reached) and self.choice.takes(start + name, self.by_suffix, *kind):
                yield start + name, *size_of(os.path.join(root, name))  # noqa: PTH118 - speed
            if kind[0] and pattern.leads_on(reached):
                try:
                    inner = entries(os.path.join(root, name))  # noqa: PTH118 - speed
                except OSError:
                    yield f"{start}{name}/", 0, ""
                else:
                    levels.append((f"{name}/", reached, iter(inner)))


def entries(folder: str) -> list[tuple[str, bool, bool]]:
    """What a folder of this host holds, sorted: name, is it a folder, is it a link.

    Raises:
        OSError: it can't be listed.
    """
    with os.scandir(folder or ".") as found:
        return sorted((entry.name, is_folder(entry), entry.is_symlink()) for entry in found)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def size_of(name: str, elsewhere: bool = False) -> tuple[int, str]:
    """Bytes in a file, and its stamp; 0 and "" if it can't be read: that becomes an error's row.

    Of a file ``elsewhere``, at a URL, it would take a request of its own to learn them.
    """
    if elsewhere:
        return ASSUMED_SIZE, ""
    try:
        status = os.stat(name)  # noqa: PTH116 - speed
    except (OSError, ValueError):
        return 0, ""
    return status.st_size, stamp_of(status.st_size, status.st_mtime_ns)
