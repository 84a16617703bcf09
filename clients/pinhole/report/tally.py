"""What a result says in numbers, counted while its rows stream past; memory stays flat."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pinhole.atlas.result import Result, vectors
from pinhole.atlas.sample import Least, Sample

LISTED = 10_000  # The most unusual images that are kept, for the list.
MAP_POINTS = 2_000  # Each with a thumbnail, for which its file is read.
COLUMNS = ("path", "sha256", "embedding", "error", "mse", "percentile", "outlier")

# Errors are counted in bins of equal width on a logarithmic scale, each 0.5 % wide.
LEAST_MSE, BINS_A_DECADE, DECADES = 1e-8, 500, 9

NUMBERS = re.compile(r"\d[\d,.]*")
MOST_REASONS = 200  # Messages may differ in every row.
OTHER = "other reasons"
EXAMPLES = 3

DIMENSIONS = 3  # Of the embedding that near-duplicates are told by, beside the error.


@dataclass
class Reason:
    """Why some inputs have no embedding.

    Attributes:
        message: of the first of them; the others' may have other numbers in it.
        count: how many.
        examples: the paths of some.
    """

    message: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Failures:
    """Reasons, and how often each was met."""

    def __init__(self) -> None:
        self._reasons: dict[str, Reason] = {}

    def add(self, failed: Any) -> None:
        """Count a pyarrow.Table of rows without an embedding."""
        errors = failed["error"] if "error" in failed.column_names else pa.nulls(len(failed))
        messages = pc.fill_null(pc.cast(errors, pa.string()), "no reason is given")
        for item in pc.value_counts(messages).to_pylist():
            self._note(item["values"], item["counts"], failed["path"], messages)

    def _note(self, message: str, count: int, paths: Any, messages: Any) -> None:
        """Count rows with the same message."""
        kind = NUMBERS.sub("0", message)
        if kind not in self._reasons and len(self._reasons) >= MOST_REASONS:
            kind, message = OTHER, OTHER
        reason = self._reasons.setdefault(kind, Reason(message))
        reason.count += count
        if len(reason.examples) < EXAMPLES:
            own = paths.filter(pc.equal(messages, message))
            reason.examples += own.slice(0, EXAMPLES - len(reason.examples)).to_pylist()

    def most_common(self) -> list[Reason]:
        """The reasons, the most frequent first."""
        return sorted(self._reasons.values(), key=lambda reason: -reason.count)


class Errors:
    """The distribution of the mse, in bins."""

    def __init__(self) -> None:
        self.counts = np.zeros(DECADES * BINS_A_DECADE, np.int64)
        self.greatest = 0.0

    def add(self, mse: NDArray[np.float32]) -> None:
        """Count float32[N]."""
        decades = np.log10(np.maximum(mse, LEAST_MSE) / LEAST_MSE)
        bins = np.minimum(decades * BINS_A_DECADE, len(self.counts) - 1).astype(np.int64)
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self.greatest = max(self.greatest, float(mse.max(initial=0)))

    def quantile(self, share: float) -> float:
        """The mse that this share of the images is below, to 0.5 %; 0 without images."""
        place = int(np.searchsorted(self.counts.cumsum(), share * self.counts.sum()))
        return float(LEAST_MSE * 10 ** ((place + 0.5) / BINS_A_DECADE)) if self.greatest else 0.0


class Spread:
    """Mean and standard deviation of columns that stream past."""

    def __init__(self) -> None:
        self._count, self._sums, self._squares = 0, np.zeros(1), np.zeros(1)

    def add(self, columns: NDArray[np.float64]) -> None:
        """Add float64[N, K]."""
        self._count += len(columns)
        self._sums = self._sums + columns.sum(0)
        self._squares = self._squares + np.square(columns).sum(0)

    def deviations(self) -> NDArray[np.float64]:
        """float64[K]; 1 for a column whose values are all alike."""
        mean = self._sums / max(1, self._count)
        variance = np.maximum(self._squares / max(1, self._count) - np.square(mean), 0)
        return np.where(variance > 0, np.sqrt(variance), 1.0)


class Tally:
    """Everything that one pass over a result finds.

    Args:
        result: to be counted.
    """

    def __init__(self, result: Result) -> None:
        self.scored = result.scored
        self.rows = self.embedded = self.outliers = 0
        self.failures, self.errors, self.spread = Failures(), Errors(), Spread()
        # Of the percentiles from 0 to 100; the last bin has those that no held-out image reaches.
        self.ranks = np.zeros(101, np.int64)
        self._unusual, self._sample = Least(LISTED), Sample(MAP_POINTS)
        for table in result.batches(*COLUMNS):
            self._add(table)

    def _add(self, table: Any) -> None:
        """Count some rows."""
        there = pc.is_valid(table["embedding"])
        good = table.filter(there)
        self.rows, self.embedded = self.rows + len(table), self.embedded + len(good)
        if len(good) < len(table):
            self.failures.add(table.filter(pc.invert(there)))
        if len(good):
            self._sample.add(good)
            self.spread.add(traits(good))
            if self.scored:
                self._score(good)

    def _score(self, good: Any) -> None:
        """Count the errors of rows that have an embedding."""
        mse = floats(good, "mse")
        self.errors.add(mse)
        ranks = floats(good, "percentile")
        outlier = good["outlier"].to_numpy()
        self.outliers += int(outlier.sum())
        self.ranks += np.bincount(ranks.astype(np.int64), minlength=101)
        # Outliers first, then by rank, then, as far as ranks are equal, by error, which is below 1.
        keys = outlier * 1_000.0 + ranks + mse * 1e-3
        self._unusual.add(good, -keys)

    def unusual(self) -> Any:
        """The most unusual rows, the most unusual first; None without scores."""
        return self._unusual.rows()

    def sample(self) -> Any:
        """Rows for the map, drawn evenly; None if no row has an embedding."""
        return self._sample.rows()


def floats(table: Any, name: str) -> NDArray[np.float32]:
    """A column without nulls: float32[N]."""
    numbers: NDArray[np.float32] = table[name].to_numpy().astype(np.float32, copy=False)
    return numbers


def traits(table: Any) -> NDArray[np.float64]:
    """What tells images apart: some numbers of the embedding, and the error: float64[N, K]."""
    columns = [vectors(table)[:, :DIMENSIONS].astype(np.float64)]
    if "mse" in table.column_names:
        columns.append(np.log(np.maximum(floats(table, "mse"), LEAST_MSE))[:, None])
    return np.column_stack(columns)
