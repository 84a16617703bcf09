"""Which of a source's files are images, by their suffix; what else is there is counted and told."""

import os
import re
from collections import Counter

from serve.bundle.pictures.kinds import SUFFIXES

# Files that hold images: archives, tables and arrays.
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
COLLECTIONS = (*TARS, ".zip", ".parquet", ".npy", ".npz")

TOLD_KINDS = 5
MOST_KINDS = 100  # Files that are numbered by their suffixes would fill the memory otherwise.
OTHER = "other"
ORDINARY = re.compile(r"\.\w{1,10}")


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix, and isn't hidden."""
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def is_collection(name: str) -> bool:
    """Whether a file holds images by its suffix."""
    return name.lower().endswith(COLLECTIONS)


def is_hidden(name: str) -> bool:
    """Whether a part of a name begins with a dot, other than ``.`` and ``..``."""
    return any(part.startswith(".") and part.strip(".") for part in name.split("/"))


class LeftOut(Counter[str]):
    """How many files a source passes over, by suffix, or by the reason for which it does.

    A suffix of an odd form counts as OTHER, and so do a missing one and those over MOST_KINDS.
    """

    def add(self, name: str, reason: str = "") -> None:
        """Count a file, unless it is hidden."""
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - speed
        kind = reason or (suffix if ORDINARY.fullmatch(suffix) else OTHER)
        if not is_hidden(name):
            self._add(kind, 1)

    def add_all(self, others: "LeftOut") -> None:
        """Count what another source passes over."""
        for kind, number in others.items():
            self._add(kind, number)

    def _add(self, kind: str, number: int) -> None:
        """Count some files of a kind."""
        self[kind if kind in self or len(self) < MOST_KINDS else OTHER] += number

    def __str__(self) -> str:
        """For example ``3 files left out: 2 .txt, 1 .mp4``."""
        noun = "file" if self.total() == 1 else "files"
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in self.most_common(TOLD_KINDS))
        more = ", …" if len(self) > TOLD_KINDS else ""
        return f"{self.total():,} {noun} left out: {kinds}{more}"
