"""The processes beside the first, which share its port.

Python's lock lets one thread of a process run Python at a time, so that one process can't use all
of many cores (docs/benchmarks.md). The kernel spreads connections over all processes that listen on
a port with SO_REUSEPORT, see socket(7), and on Linux Granian does.

The first process, the leader, forks the others, its followers, before it has threads or an engine:
so they share what it has imported. A follower answers callers and watches itself as the leader
does, and ends with a non-zero code where it can't go on. That ends the service. The leader tells it
through a pipe which version of the bundle to open, and then whether to serve it.
"""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from serve.bundle.errors import ServeError
from serve.bundle.manifest import load_bundle
from serve.errors import LaunchError
from serve.granian.model import Opened, open_model
from serve.granian.process import Process
from serve.granian.team import Team
from serve.launcher.bundles import bundle_folder
from serve.launcher.settings import Settings
from serve.launcher.watching import watch

logger = logging.getLogger(__name__)

# By then the only threads are of numpy's OpenBLAS, which ends them for a fork (pthread_atfork).
FORK = multiprocessing.get_context("fork")
OPEN_S = 120.0  # for a follower to open a bundle
SILENT_S = 30.0  # a follower that says nothing of itself for so long never will
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in linux/prctl.h


class Follower:
    """A follower, as the leader sees it.

    Args:
        number: in the team.
        team: all processes.
        home: the service's folder.
        stopping: set, in each process, once that process is told to stop.
    """

    def __init__(self, number: int, team: Team, home: Path, stopping: threading.Event) -> None:
        self._number, self._team = number, team
        self._name = f"process {number + 1} of {team.size}"
        self._pipe, theirs = FORK.Pipe()
        arguments = (number, team, home, stopping, theirs, os.getpid())
        self._process = FORK.Process(target=follow, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def send(self, message: int | bool) -> None:
        """Name a version to open, or say whether to serve it."""
        with suppress(OSError):  # the follower has gone, as ``receive`` will tell
            self._pipe.send(message)

    def receive(self) -> str | None:
        """Why the follower couldn't do what it was sent; None if it has done it."""
        with suppress(EOFError, OSError):
            if self._pipe.poll(OPEN_S):
                fault: str | None = self._pipe.recv()
                return fault and f"{self._name}: {fault}"
        self._pipe.close()  # a late answer would be taken for the answer to something else
        return f"{self._name} gave no answer"

    def fault(self) -> str | None:
        """Why the follower can't go on; None while it can."""
        silent_s = self._team.silent_s(self._number)
        if silent_s > SILENT_S:
            return f"{self._name} has been silent for {silent_s:.0f} s"
        code = self._process.exitcode
        return None if code is None else f"{self._name} ended with exit code {code}"

    def terminate(self) -> None:
        """Have the follower answer what has come in, and end; a silent follower is killed."""
        if self._team.silent_s(self._number) > SILENT_S:
            self._process.kill()
        self._process.terminate()

    def end(self, deadline: float) -> str | None:
        """Wait for the end until a time of time.monotonic(), then kill; tells of a bad end."""
        self._process.join(max(0.0, deadline - time.monotonic()))
        self._process.kill()
        self._process.join()
        return self.fault() if self._process.exitcode else None


class Followers:
    """All followers; none if the service has one process.

    Args:
        team: all processes. This process must not have threads or an engine yet.
        home: the service's folder.
        stopping: set, in each process, once that process is told to stop.
    """

    def __init__(self, team: Team, home: Path, stopping: threading.Event) -> None:
        self._all = [Follower(number, team, home, stopping) for number in range(1, team.size)]

    @contextmanager
    def opening(self, version: int) -> Iterator[None]:
        """While the block runs, have the followers open a version; after it, they serve it.

        Raises:
            LaunchError: a follower can't open it. After this, or after an error in the block, no
                follower serves it.
        """
        self._send(version)
        is_open = False
        try:
            yield
            is_open = True
        finally:
            faults = self._receive()
            serve = is_open and not faults
            self._send(serve)
            if serve:
                self._receive()
        if faults:
            raise LaunchError(faults[0])

    def fault(self) -> str | None:
        """Why a follower can't go on; None while all can."""
        return next(filter(None, (each.fault() for each in self._all)), None)

    def terminate(self) -> None:
        """Have the followers answer what has come in, and end."""
        for each in self._all:
            each.terminate()

    def end(self, deadline: float) -> str | None:
        """Wait for the end until a time of time.monotonic(), then kill; tells of a bad end."""
        faults = [each.end(deadline) for each in self._all]
        return next(filter(None, faults), None)

    def _send(self, message: int | bool) -> None:
        for each in self._all:
            each.send(message)

    def _receive(self) -> list[str]:
        return list(filter(None, [each.receive() for each in self._all]))


def follow(
    number: int, team: Team, home: Path, stopping: threading.Event, pipe: Connection, leader: int
) -> None:
    """Be a follower until told to stop; exits with a non-zero code if it can't go on."""
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != leader:  # the leader ended before the kernel was asked
        return
    team.take_cores(number)
    settings = team.settings_of(number)
    opened = open_next(pipe, home, settings)
    if opened is None:
        return
    process = Process(opened, team, number, stopping)
    process.start()
    pipe.send(None)
    del opened  # a swap must be able to free it
    arguments = (pipe, home, settings, process.take)
    threading.Thread(target=obey, args=arguments, daemon=True).start()
    code = 0
    try:
        watch(process, stopping, lambda: None)
    except LaunchError as error:
        logger.critical("%s", error)
        code = 1
    process.stop()
    sys.exit(code if process.has_ended else 1)


def open_next(pipe: Connection, home: Path, settings: Settings) -> Opened | None:
    """Open the version that the leader names; None if it isn't to be served."""
    opened = fault = None
    version = pipe.recv()
    try:
        opened = open_model(load_bundle(bundle_folder(home, version)), version, settings)
    except ServeError as error:
        fault = str(error)
    pipe.send(fault)
    return opened if pipe.recv() else None


def obey(pipe: Connection, home: Path, settings: Settings, take: Callable[[Opened], None]) -> None:
    """Swap bundles as the leader says. The pipe ends if this fails, so that the leader knows."""
    with pipe, suppress(EOFError):
        while True:
            if opened := open_next(pipe, home, settings):
                take(opened)
                pipe.send(None)
