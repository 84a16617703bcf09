"""What a job has found for each content so far, by sha256: identical files are embedded once.

On disk once it is large, so that memory stays flat: SQLite's temporary database, which vanishes
with the process.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.rows import Answer, Row

IN_MEMORY_KIB = 8_192
AT_ONCE = 256  # digests in one question

Stored = tuple[bytes, bytes | None, float | None, str | None, str | None]


class Known:
    """sha256 → answer or fault; for one thread at a time."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(  # "": temporary
            "", isolation_level=None, check_same_thread=False
        )
        self._database.execute(f"PRAGMA cache_size = -{IN_MEMORY_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(
            "CREATE TABLE known (sha256 BLOB PRIMARY KEY, embedding BLOB, mse REAL, "
            "reason TEXT, message TEXT) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._database.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Remember rows.

        Raises:
            JobError: no room for the temporary file.
        """
        stored = (stored_row(row) for row in rows if row.sha256)
        try:
            self._database.executemany("INSERT OR IGNORE INTO known VALUES (?, ?, ?, ?, ?)", stored)
        except sqlite3.OperationalError as error:
            raise no_room(error) from error

    def find(self, digests: Sequence[str]) -> dict[str, Answer | Fault]:
        """Those of these digests that are known.

        Raises:
            JobError: no room for the temporary file.
        """
        try:
            return dict(self._find(digests))
        except sqlite3.OperationalError as error:  # asking may write what was learned before
            raise no_room(error) from error

    def _find(self, digests: Sequence[str]) -> Iterator[tuple[str, Answer | Fault]]:
        """Ask for AT_ONCE at a time."""
        for start in range(0, len(digests), AT_ONCE):
            keys = [bytes.fromhex(digest) for digest in digests[start : start + AT_ONCE]]
            marks = ",".join("?" * len(keys))
            question = f"SELECT * FROM known WHERE sha256 IN ({marks})"  # noqa: S608 - only marks
            for key, embedding, mse, reason, message in self._database.execute(question, keys):
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
    """What it means that the temporary file can't grow."""
    return JobError(f"no room for the index of what is known (see $TMPDIR): {error}")
