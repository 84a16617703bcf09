"""The list of a source's inputs, on disk once it is long: memory stays flat however many."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

IN_MEMORY = 1 << 20  # bytes; a longer list goes to a temporary file
STRIDE = 4_096  # inputs between two known places in the file


class Listing:
    """Names, and where each is to be found; written once, then read.

    Args:
        stamp: goes into the digest before the names: what else tells two sources apart.
        entries: (name, size in bytes, place in an archive) of each input.
    """

    def __init__(self, stamp: str, entries: Iterable[tuple[str, int, int]]) -> None:
        self.count = 0
        self._sum = hashlib.sha256(json.dumps(stamp).encode())
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - lives with the job
        self._places: list[int] = []  # in the file, of every STRIDE-th input
        with ExitStack() as undo:  # what lists the source may fail half-way
            undo.callback(self.close)
            for name, size, place in entries:
                self._add(name, size, place)
            undo.pop_all()

    @property
    def digest(self) -> str:
        """sha256 of the stamp and all names."""
        return self._sum.hexdigest()

    def _add(self, name: str, size: int, place: int) -> None:
        """Append an input."""
        if self.count % STRIDE == 0:
            self._places.append(self._file.tell())
        key = json.dumps(name)  # ASCII: newlines and bytes that aren't UTF-8 are escaped
        self._sum.update(key.encode() + b"\n")
        self._file.write(f"[{key}, {size}, {place}]\n".encode())
        self.count += 1

    def close(self) -> None:
        """Forget the list."""
        self._file.close()

    def entries(self, numbers: Iterable[int]) -> Iterator[tuple[int, str, int, int]]:
        """(number, name, size, place) of growing numbers."""
        position = -1  # of the line that was read last
        line = b""
        for number in numbers:
            if position < 0 or number - position > STRIDE:
                self._file.seek(self._places[number // STRIDE])
                position = number // STRIDE * STRIDE - 1
            while position < number:
                line = self._file.readline()
                position += 1
            fields: list[Any] = json.loads(line)
            yield number, fields[0], fields[1], fields[2]
