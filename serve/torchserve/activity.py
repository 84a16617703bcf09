"""Which batches are under way: each worker writes this to a file, and the launcher reads the files.

The launcher has to know it to stop or swap without losing a request, and neither TorchServe's APIs
nor its metrics say it. Each worker keeps two numbers in its file: the batches it has begun and the
batches it has ended. The file is memory-mapped, so that an update costs less than a microsecond.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BEGUN, ENDED = 0, 1  # places of the two numbers in a file


class Activity:
    """This worker's own two numbers.

    Args:
        folder: shared by the workers of one TorchServe; exists.
        endpoint: of this worker.
    """

    def __init__(self, folder: Path, endpoint: str) -> None:
        file = folder / f"{endpoint}-{os.getpid()}"
        self._counts = np.memmap(file, np.int64, "w+", shape=(2,))

    def begin(self) -> None:
        """Note that a batch has started to come in."""
        self._counts[BEGUN] += 1

    def end(self) -> None:
        """Note that every reply to every batch so far has been sent, to the last byte."""
        self._counts[ENDED] = self._counts[BEGUN]


@dataclass(frozen=True)
class Pulse:
    """What the workers of an endpoint have done; it changes whenever a batch begins or ends.

    Attributes:
        begun: batches that all workers of the endpoint ever began.
        ended: batches that they ended.
        under_way: living workers inside a batch.
    """

    begun: int
    ended: int
    under_way: int


def pulse(folder: Path, endpoint: str) -> Pulse:
    """What an endpoint's workers have done so far."""
    files = list(folder.glob(f"{endpoint}-*"))
    found = [counts(file) for file in files]
    return Pulse(
        begun=sum(begun for begun, _ in found),
        ended=sum(ended for _, ended in found),
        under_way=len(under_way(files)),
    )


def under_way(files: Iterable[Path]) -> dict[Path, int]:
    """For each living worker inside a batch: its file, and the number of that batch."""
    found = {}
    for file in files:
        begun, ended = counts(file)
        if begun > ended and is_alive(pid_of(file)):
            found[file] = begun
    return found


def is_over(file: Path, batch: int) -> bool:
    """Whether a worker has ended a batch, or has died."""
    return counts(file)[ENDED] >= batch or not is_alive(pid_of(file))


def pid_of(file: Path) -> int:
    """The process that writes a file."""
    return int(file.name.rpartition("-")[2])


def counts(file: Path) -> tuple[int, int]:
    """Batches begun and ended; 0 and 0 for a file that is still empty."""
    found = np.frombuffer(file.read_bytes().ljust(16, b"\0"), np.int64)
    return int(found[BEGUN]), int(found[ENDED])


def is_alive(pid: int) -> bool:
    """Whether there is a process with this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # the process belongs to another user
    return True
