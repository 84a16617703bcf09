"""Which batches are under way: each worker writes this to a file, and the launcher reads the files.

The launcher has to know it to stop or swap without losing a request, and neither TorchServe's APIs
nor its metrics say it. Each worker keeps two numbers in its file: the batches it has begun and the
batches it has ended. The file is memory-mapped, so that an update costs less than a microsecond.
"""

import os
from pathlib import Path

import numpy as np

BEGUN, ENDED = 0, 1  # places of the two numbers in a file


class Activity:
    """This worker's own two numbers.

    Args:
        folder: shared by the workers of one TorchServe; exists.
    """

    def __init__(self, folder: Path) -> None:
        self._counts = np.memmap(folder / str(os.getpid()), np.int64, "w+", shape=(2,))

    def begin(self) -> None:
        """Note that a batch has started to come in."""
        self._counts[BEGUN] += 1

    def end(self) -> None:
        """Note that every reply to every batch so far has been sent, to the last byte."""
        self._counts[ENDED] = self._counts[BEGUN]


def under_way(folder: Path) -> dict[Path, int]:
    """For each living worker inside a batch: its file, and the number of that batch."""
    found = {}
    for file in folder.iterdir():
        begun, ended = counts(file)
        if begun > ended and is_alive(int(file.name)):
            found[file] = begun
    return found


def is_over(file: Path, batch: int) -> bool:
    """Whether a worker has ended a batch, or has died."""
    return counts(file)[ENDED] >= batch or not is_alive(int(file.name))


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
