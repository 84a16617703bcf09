"""The answers of a job so far, and of earlier jobs: nothing is embedded twice.

They are found by the sha256 of the content; those of earlier jobs also by an input's name and
stamp, so that the input needn't be read. They are kept in SQLite's temporary database. It goes to
the disk once it is large, so memory stays flat, and it vanishes with the process.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, Self, TypeVar

import numpy as np

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.rows import Answer, Row

CACHE_KIB = 8_192  # SQLite keeps this much in memory.
TOGETHER = 256  # The most rows in one statement.

TABLES = (
    "CREATE TABLE known (sha256 BLOB PRIMARY KEY, embedding BLOB, mse REAL, "
    "percentile REAL, outlier INTEGER, reason TEXT, message TEXT) WITHOUT ROWID",
    "CREATE TABLE named (input BLOB PRIMARY KEY, digest BLOB) WITHOUT ROWID",
)
BY_DIGEST = "SELECT sha256, * FROM known WHERE sha256 IN"
BY_INPUT = "SELECT input, known.* FROM named JOIN known ON sha256 = digest WHERE input IN"

Stored = tuple[bytes, bytes | None, float | None, float | None, bool | None, str | None, str | None]
T = TypeVar("T")


class Known:
    """sha256 → answer or fault; only one thread may use it at a time.

    Every method raises a JobError where there is no room for the temporary file.

    Attributes:
        any_stamp: whether any row was learnt whose input has a stamp.
    """

    def __init__(self) -> None:
        self.any_stamp = False
        # An empty name makes a temporary database (https://sqlite.org/inmemorydb.html).
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        for table in TABLES:
            self._database.execute(table)
        self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, rows: Sequence[Row]) -> None:
        """Remember the results of rows, by sha256; an answer replaces a fault."""
        for verb, kind in (("REPLACE", Answer), ("INSERT OR IGNORE", Fault)):
            some = (stored_row(row) for row in rows if row.sha256 and isinstance(row.result, kind))
            self._write(f"{verb} INTO known VALUES (?, ?, ?, ?, ?, ?, ?)", some)

    def learn(self, rows: Iterable[Row], by_name: bool) -> None:
        """Remember rows of an earlier job, ``by_name`` and stamp too."""
        for some in batches(rows):
            self.add(some)
            if not by_name:
                continue
            named = (
                (input_key(row.path, row.stamp), bytes.fromhex(row.sha256 or ""))
                for row in some
                if row.stamp
            )
            self._write("REPLACE INTO named VALUES (?, ?)", named)
            self.any_stamp = self.any_stamp or any(row.stamp for row in some)

    def find(self, digests: Iterable[str]) -> dict[str, Answer | Fault]:
        """The results for those of these digests that are known."""
        found = self._select(BY_DIGEST, [bytes.fromhex(digest) for digest in digests])
        return {key.hex(): result for key, _, result in found}

    def take_over(self, inputs: Iterable[tuple[int, str, str]]) -> list[Row]:
        """The rows of those inputs, (number, name, stamp) each, that an earlier job has read."""
        stamped = [each for each in inputs if each[2]]
        keys = [input_key(name, stamp) for _, name, stamp in stamped]
        found = {key: (digest, result) for key, digest, result in self._select(BY_INPUT, keys)}
        return [
            Row(number, name, *found[key], stamp)
            for key, (number, name, stamp) in zip(keys, stamped, strict=True)
            if key in found
        ]

    def _write(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        try:
            self._database.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            raise no_room(error) from error

    def _select(
        self, query: str, keys: Sequence[bytes]
    ) -> Iterator[tuple[bytes, str, Answer | Fault]]:
        """Yield (key, sha256, result) of those of these keys that are known."""
        for some in batches(keys):
            marks = ",".join("?" * len(some))
            try:
                found = self._database.execute(f"{query} ({marks})", some).fetchall()
            # A SELECT needs room too: SQLite may write older rows out to make space in its cache.
            except sqlite3.OperationalError as error:
                raise no_room(error) from error
            for key, digest, embedding, mse, percentile, outlier, reason, message in found:
                if embedding is None:
                    yield key, digest.hex(), Fault(reason, message)
                    continue
                numbers = np.frombuffer(embedding, np.float32)
                judged = outlier if outlier is None else bool(outlier)
                yield key, digest.hex(), Answer(numbers, mse, percentile, judged)


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut items into lists of at most TOGETHER."""
    rest = iter(items)
    while some := list(islice(rest, TOGETHER)):
        yield some


def input_key(name: str, stamp: str) -> bytes:
    """The key of an input."""
    return blake2b(f"{stamp}\0{name}".encode(), digest_size=16).digest()


def stored_row(row: Row) -> Stored:
    """A row as the database keeps it."""
    key, result = bytes.fromhex(row.sha256 or ""), row.result
    if isinstance(result, Fault):
        return key, None, None, None, None, result.reason, result.message
    scores = result.mse, result.percentile, result.outlier
    return key, result.embedding.tobytes(), *scores, None, None


def no_room(error: sqlite3.OperationalError) -> JobError:
    """The error that ends a job when SQLite's temporary file can't grow."""
    return JobError(f"no room for the index of what is known (see $TMPDIR): {error}")
