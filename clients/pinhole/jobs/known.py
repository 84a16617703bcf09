"""The answers of a job so far, by the sha256 of the content: identical files are embedded once.

They are kept in SQLite's temporary database. It goes to the disk once it is large, so memory stays
flat, and it vanishes with the process.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import numpy as np

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.rows import Answer, Row

CACHE_KIB = 8_192  # SQLite keeps this much in memory.
QUERY_DIGESTS = 256  # The most digests in one SELECT.

Stored = tuple[bytes, bytes | None, float | None, str | None, str | None]


class Known:
    """sha256 → answer or fault; only one thread may use it at a time."""

    def __init__(self) -> None:
        # An empty name makes a temporary database (https://sqlite.org/inmemorydb.html).
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(
            "CREATE TABLE known (sha256 BLOB PRIMARY KEY, embedding BLOB, mse REAL, "
            "reason TEXT, message TEXT) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Remember the results of rows.

        Raises:
            JobError: there is no room for the temporary file.
        """
        stored = (stored_row(row) for row in rows if row.sha256)
        try:
            self._database.executemany("INSERT OR IGNORE INTO known VALUES (?, ?, ?, ?, ?)", stored)
        except sqlite3.OperationalError as error:
            raise no_room(error) from error

    def find(self, digests: Sequence[str]) -> dict[str, Answer | Fault]:
        """The results for those of these digests that are known.

        Raises:
            JobError: there is no room for the temporary file.
        """
        try:
            return dict(self._select(digests))
        # A SELECT needs room too: SQLite may write older rows out to make space in its cache.
        except sqlite3.OperationalError as error:
            raise no_room(error) from error

    def _select(self, digests: Sequence[str]) -> Iterator[tuple[str, Answer | Fault]]:
        """Look the digests up, QUERY_DIGESTS at a time."""
        for start in range(0, len(digests), QUERY_DIGESTS):
            keys = [bytes.fromhex(digest) for digest in digests[start : start + QUERY_DIGESTS]]
            marks = ",".join("?" * len(keys))
            query = f"SELECT * FROM known WHERE sha256 IN ({marks})"  # noqa: S608 - only marks
            for key, embedding, mse, reason, message in self._database.execute(query, keys):
                if embedding is None:
                    yield key.hex(), Fault(reason, message)
                else:
                    yield key.hex(), Answer(np.frombuffer(embedding, np.float32), mse)


def stored_row(row: Row) -> Stored:
    """A row as the database keeps it."""
    key, result = bytes.fromhex(row.sha256 or ""), row.result
    if isinstance(result, Fault):
        return key, None, None, result.reason, result.message
    return key, result.embedding.tobytes(), result.mse, None, None


def no_room(error: sqlite3.OperationalError) -> JobError:
    """The error that ends a job when SQLite's temporary file can't grow."""
    return JobError(f"no room for the index of what is known (see $TMPDIR): {error}")
