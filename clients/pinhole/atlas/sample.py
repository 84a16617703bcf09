"""Some of a result's rows, chosen while they stream past, and the classes that folders give."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# With more folders than this, they are no classes: each patient has one, or each day.
MOST_CLASSES = 50
# Folders above the classes, as in torchvision's and Hugging Face's layouts of a dataset.
SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing"))


class Least:
    """The rows with the least keys of all rows added; holds at most three times as many rows.

    Args:
        count: how many rows.
    """

    def __init__(self, count: int) -> None:
        self._count, self._limit = count, np.inf
        self._tables: list[Any] = []

    def add(self, table: Any, keys: NDArray[np.float64]) -> None:
        """Add a pyarrow.Table with a key for each row."""
        low = keys < self._limit
        self._tables.append(table.filter(pa.array(low)).append_column("key", pa.array(keys[low])))
        if sum(map(len, self._tables)) > 2 * self._count:
            self._cut()

    def rows(self) -> Any:
        """A pyarrow.Table of the rows, the least key first; None if no table was added."""
        self._cut()
        return self._tables[0] if self._tables else None

    def _cut(self) -> None:
        """Let go of all rows but the least."""
        if self._tables:
            table = pa.concat_tables(self._tables).sort_by("key").slice(0, self._count)
            # A copy: a slice of sorted rows would hold on to all of them.
            self._tables = [table.take(pa.array(np.arange(len(table))))]
            if len(table) == self._count:
                self._limit = table["key"][-1].as_py()


class Sample:
    """Rows drawn evenly: every row has the same chance, wherever it stands; the same each time.

    Rows at equal distances would not do: where classes take turns, all could be of one class.

    Args:
        count: how many rows.
    """

    def __init__(self, count: int) -> None:
        self._least, self._random = Least(count), np.random.default_rng(0)

    def add(self, table: Any) -> None:
        """Let the rows of a pyarrow.Table take part."""
        self._least.add(table, self._random.random(len(table)))

    def rows(self) -> Any:
        """The rows in their order, as a pyarrow.Table; None if no table was added."""
        table = self._least.rows()
        return None if table is None else table.sort_by("row")


@dataclass(frozen=True)
class Classes:
    """Which folder of a path names the image's class.

    Attributes:
        depth: the folder's place in the path; None where folders are no classes.
    """

    depth: int | None

    @classmethod
    def of(cls, paths: Iterable[str]) -> Self:
        """Find the first folder in which paths differ, below train, test and the like."""
        folders = [path.split("/")[:-1] for path in paths] or [[]]
        depth = shared(folders)
        if at_depth(folders, depth) <= SPLITS:
            depth += 1
        return cls(depth if 1 < len(at_depth(folders, depth)) <= MOST_CLASSES else None)

    def label(self, path: str) -> str:
        """The class of an image; "" if it has none."""
        folders = path.split("/")[:-1]
        return folders[self.depth] if self.depth is not None and self.depth < len(folders) else ""


def shared(folders: Sequence[list[str]]) -> int:
    """How many folders all paths begin with."""
    # All others lie between these two in order, so what these two share, all share.
    first, last = min(folders), max(folders)
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (one, other) in pairs if one != other), len(first))


def at_depth(folders: Sequence[Sequence[str]], depth: int) -> set[str]:
    """The distinct folders at a place in some paths; "" stands for paths that end before."""
    return {parts[depth] if depth < len(parts) else "" for parts in folders}
