"""Images that the model can't tell apart: copies, and the same picture in another kind of file.

Their embeddings and errors fall into the same cell of a fine grid. The cells are so small that it
happens to less than one pair of unrelated images in the whole result.

A wider cell would find pictures that were saved again as JPEG, and others with them: at quality 90,
half of MNIST's test digits move by more than 0.024 deviations, and of 10,000 digits 272 pairs lie
within 0.02.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pinhole.atlas.result import Result
from pinhole.report.tally import Tally, traits

AT_ONCE = 4_000_000  # Rows whose cells are compared in memory; of more, a part in each pass.
LARGEST = 12  # Groups that are shown.
MEMBERS = 6  # Of a group that are shown.
CHANCE = 0.1  # Pairs of unrelated images in one cell, if images were spread like a normal law.
WIDEST = 0.02  # A cell's side, in standard deviations.
MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2 ** 64 over the golden ratio, for Fibonacci hashing.


@dataclass(frozen=True)
class Group:
    """Images in one cell.

    Attributes:
        count: how many.
        members: a pyarrow.Table of the first of them.
    """

    count: int
    members: Any


@dataclass(frozen=True)
class Duplicates:
    """All images that have others in their cells.

    Attributes:
        images: how many.
        groups: number of cells.
        largest: the cells with the most images.
        side: of a cell, in standard deviations.
    """

    images: int
    groups: int
    largest: list[Group]
    side: float


def find_duplicates(result: Result, tally: Tally) -> Duplicates:
    """Find the cells with more than one image.

    Args:
        result: is read once for every AT_ONCE rows, and once more.
        tally: of the same result.
    """
    deviations = tally.spread.deviations()
    side = side_of_cell(tally.embedded, len(deviations))
    cells = deviations * side
    images = groups = 0
    keys, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    parts = -(-tally.embedded // AT_ONCE)
    for part in range(parts):
        found = [key[key % np.uint64(parts) == part] for key, _ in keyed(result, cells)]
        own, times = repeated(np.concatenate(found))
        images, groups = images + int(times.sum()), groups + len(own)
        keys, counts = np.append(keys, own), np.append(counts, times)
        order = np.argsort(-counts, kind="stable")[:LARGEST]
        keys, counts = keys[order], counts[order]
    return Duplicates(images, groups, collect(result, cells, keys, counts), side)


def side_of_cell(images: int, dimensions: int) -> float:
    """A cell's side, in standard deviations.

    Two images of a normal law are in one cell of side s with the probability (s / (2 √π)) ** K.
    """
    pairs = max(1, images * (images - 1) / 2)
    return float(min(WIDEST, 2 * np.sqrt(np.pi) * (CHANCE / pairs) ** (1 / dimensions)))


def keyed(result: Result, cells: NDArray[np.float64], *more: str) -> Any:
    """Yield (the number of each row's cell, uint64[N]; a pyarrow.Table of the rows)."""
    for table in result.batches("embedding", "mse", *more):
        good = table.filter(pc.is_valid(table["embedding"]))
        if len(good):
            key = np.zeros(len(good), np.uint64)
            for places in np.floor(traits(good) / cells).astype(np.int64).view(np.uint64).T:
                key = (key ^ places) * MIXER
                key ^= key >> np.uint64(32)
            yield key, good


def repeated(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """What is more than once in an array, which is sorted in place, and how often."""
    keys.sort()
    own = np.unique(keys[1:][keys[1:] == keys[:-1]])
    return own, np.searchsorted(keys, own, "right") - np.searchsorted(keys, own)


def collect(
    result: Result, cells: NDArray[np.float64], keys: NDArray[np.uint64], counts: NDArray[np.int64]
) -> list[Group]:
    """The first members of these cells."""
    if not len(keys):
        return []
    found: dict[int, list[Any]] = {int(key): [] for key in keys}
    for key, table in keyed(result, cells, "path", "sha256"):
        for row in np.flatnonzero(np.isin(key, keys)):
            members = found[int(key[row])]
            if len(members) < MEMBERS:
                members.append(table.slice(row, 1))
    return [
        Group(int(count), pa.concat_tables(found[int(key)]))
        for key, count in zip(keys, counts, strict=True)
    ]
