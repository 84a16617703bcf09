"""Which batches are under way, told by the workers and read by the launcher through files.

Neither TorchServe's APIs nor its metrics say whether a worker is inside a batch; stopping or
swapping without losing a request has to know. Each worker keeps two numbers in a file of its own,
memory-mapped, so that telling costs less than a microsecond: batches begun, batches ended.
"""

import os
from pathlib import Path

import numpy as np

BEGUN, ENDED = 0, 1


class Activity:
    """This worker's own two numbers.

    Args:
        folder: shared by the workers of one TorchServe; exists.
    """

    def __init__(self, folder: Path) -> None:
        self._counts = np.memmap(folder / str(os.getpid()), np.int64, "w+", shape=(2,))

    def begin(self) -> None:
        """A batch has started to come in."""
        self._counts[BEGUN] += 1

    def end(self) -> None:
        """Every batch that has come in is answered, to the last byte."""
        self._counts[ENDED] = self._counts[BEGUN]


def under_way(folder: Path) -> dict[Path, int]:
    """For each living worker inside a batch, its file and the number of that batch."""
    found = {}
    for file in folder.iterdir():
        begun, ended = counts(file)
        if begun > ended and is_alive(int(file.name)):
            found[file] = begun
    return found


def is_over(file: Path, batch: int) -> bool:
    """Whether a worker has ended a batch, or died."""
    return counts(file)[ENDED] >= batch or not is_alive(int(file.name))


def counts(file: Path) -> tuple[int, int]:
    """Batches begun and ended; none for a file that is only just being made."""
    found = np.frombuffer(file.read_bytes().ljust(16, b"\0"), np.int64)
    return int(found[BEGUN]), int(found[ENDED])


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True
