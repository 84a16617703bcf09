"""The list of a source's inputs, on disk once it is long, so that memory stays flat."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

from pinhole.jobs.errors import JobError

IN_MEMORY = 1 << 20  # A list of more bytes than this goes to a temporary file.
STRIDE = 4_096  # The offset of every STRIDE-th line is remembered, so that reading can start there.


class Listing:
    """The names, sizes, offsets and stamps of a source's inputs; written once, then read.

    Args:
        stamp: what tells two sources apart besides their inputs; the digest begins with it.
        entries: (name, size in bytes, offset in an archive) of each input, or with its stamp too: a
            short text that changes when the input does.

    Raises:
        JobError: there is no room for it.
    """

    def __init__(
        self, stamp: str, entries: Iterable[tuple[str, int, int] | tuple[str, int, int, str]]
    ) -> None:
        self.count = 0
        self._sum = hashlib.sha256(json.dumps(stamp).encode())
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - lives with the job
        self._line_offsets: list[int] = []  # Of every STRIDE-th line in the file.
        with ExitStack() as undo:  # The iteration over the entries may fail half-way.
            undo.callback(self.close)
            for entry in entries:
                self._add(*entry)
            undo.pop_all()

    @property
    def digest(self) -> str:
        """sha256 of the source's stamp, and of all names and stamps."""
        return self._sum.hexdigest()

    def _add(self, name: str, size: int, offset: int, stamp: str = "") -> None:
        """Append an input."""
        if self.count % STRIDE == 0:
            self._line_offsets.append(self._file.tell())
        # Escapes newlines, and bytes that aren't UTF-8: the line is ASCII.
        key, mark = json.dumps(name), json.dumps(stamp)
        self._sum.update(f"{key} {mark}\n".encode())
        try:
            self._file.write(f"[{key}, {size}, {offset}, {mark}]\n".encode())
        except OSError as error:
            room = f"no room for the list of inputs (see $TMPDIR): {error.strerror}"
            raise JobError(room) from error
        self.count += 1

    def close(self) -> None:
        """Delete the list."""
        with suppress(OSError):  # Of a line that there was no room for.
            self._file.close()

    def entries(self, numbers: Iterable[int]) -> Iterator[tuple[int, str, int, int, str]]:
        """Yield (number, name, size, offset, stamp) of growing numbers."""
        position = -1  # Number of the line that was read last.
        line = b""
        for number in numbers:
            if position < 0 or number - position > STRIDE:
                self._file.seek(self._line_offsets[number // STRIDE])
                position = number // STRIDE * STRIDE - 1
            while position < number:
                line = self._file.readline()
                position += 1
            fields: list[Any] = json.loads(line)
            yield number, fields[0], fields[1], fields[2], fields[3]
