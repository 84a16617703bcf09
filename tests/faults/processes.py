"""The processes of a service: which there are, and the memory and descriptors that they hold."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

EVERY_S = 1.0
PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """A process and all that come from it; those that end meanwhile are left out."""
    try:
        lists = [file.read_text() for file in (PROC / str(pid) / "task").glob("*/children")]
    except OSError:
        return []
    return [pid, *(each for text in lists for child in text.split() for each in tree(int(child)))]


def is_alive(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def memory_bytes(pids: list[int]) -> int:
    """The memory of processes; what they share counts once (PSS)."""
    total = 0
    for pid in pids:
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def descriptors(pids: list[int]) -> int:
    """The open descriptors of processes."""
    count = 0
    for pid in pids:
        try:
            count += len(list((PROC / str(pid) / "fd").iterdir()))
        except OSError:
            continue
    return count


@dataclass
class Samples:
    """Memory of a service over time."""

    seconds: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)

    def memory_slope(self) -> float:
        """Bytes a minute in the last two thirds of the samples: caches fill at first."""
        third = len(self.seconds) // 3
        return float(np.polyfit(self.seconds[third:], self.memory_bytes[third:], 1)[0]) * 60


@contextmanager
def watched(pid: int) -> Iterator[Samples]:
    """Sample a process and all that come from it until the block ends."""
    samples, over = Samples(), threading.Event()

    def sample() -> None:
        while not over.wait(EVERY_S):
            pids = tree(pid)
            samples.seconds.append(time.monotonic())
            samples.memory_bytes.append(memory_bytes(pids))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()
