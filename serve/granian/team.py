"""What the processes of a service on Granian know of each other."""

import mmap
import os
import sys
import time
from collections.abc import Set
from dataclasses import replace

from serve.launcher.settings import Settings

LEADER = 0  # the number of the process that starts the others
FRESH_S = 15.0  # a process tells of itself every six seconds at least, even if it is busy


class Team:
    """The processes of a service, known by their numbers.

    Made before there is more than one. What a process tells of itself lies in memory that all of
    them share; no two processes write to the same place.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self.size = settings.processes
        self._settings = settings
        self._workers = max(1, settings.worker_count // self.size)
        self._tokens = [f"{settings.canary_token}-{number}" for number in range(self.size)]
        self._told_at, self._ready_at = shared_times(self.size), shared_times(self.size)

    def settings_of(self, number: int) -> Settings:
        """The settings of one process: its share of the workers, and the token of its canaries."""
        token = self._tokens[number]
        return replace(self._settings, workers=self._workers, canary_token=token)

    def other_tokens(self, number: int) -> Set[str]:
        """The tokens of the canaries that the other processes mean for themselves."""
        return {*self._tokens} - {self._tokens[number]}

    def tell(self, number: int, ready: bool) -> str | None:
        """Tell whether a process is ready by itself; what ``reason`` says is for the leader."""
        now = time.monotonic()  # Linux has one such clock for all processes
        self._told_at[number], self._ready_at[number] = now, now if ready else 0.0
        return self.reason() if number == LEADER else None

    def reason(self) -> str | None:
        """Why the service isn't ready, though the process that asks may be; None if it is."""
        oldest = time.monotonic() - FRESH_S
        ready = sum(at > oldest for at in self._ready_at)
        return None if ready == self.size else f"{ready} of {self.size} processes ready"

    def silent_s(self, number: int) -> float:
        """Seconds since a process last told of itself; 0 if it never has."""
        told_at = self._told_at[number]
        return time.monotonic() - told_at if told_at else 0.0

    def take_cores(self, number: int) -> None:
        """Keep this process to its share of the cores, if they can be shared out evenly."""
        if self.size > 1 and sys.platform == "linux":
            cores = sorted(os.sched_getaffinity(0))
            if len(cores) % self.size == 0:
                os.sched_setaffinity(0, cores[number :: self.size])


def shared_times(count: int) -> "memoryview[float]":
    """float64[count] of zeros, in memory that this process shares with those it forks."""
    return memoryview(mmap.mmap(-1, 8 * count)).cast("d")
