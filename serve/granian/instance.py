"""One running service on Granian: started, watched, drained, stopped."""

import os
import shutil
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from serve.bundle.manifest import Bundle
from serve.errors import LaunchError
from serve.granian.followers import Followers
from serve.granian.model import Opened, open_model
from serve.granian.process import END_S, Process
from serve.granian.team import LEADER, Team
from serve.launcher.bundles import Served, copy_bundle
from serve.launcher.metrics import read_metrics
from serve.launcher.private import Answers, PrivateServer
from serve.launcher.proof import prove_engine
from serve.launcher.settings import Settings
from serve.launcher.swapping import Swapper
from serve.launcher.watching import DRAIN_S

STOP_S = DRAIN_S + 2 * END_S + 1  # for followers to end; each stops as this process does


class Instance:
    """This process and its followers, the private port beside them, and what they serve.

    Its arguments and errors are those of serve.launcher.watching.Instance.
    """

    def __init__(
        self, bundle: Bundle, settings: Settings, home: Path, stopping: threading.Event
    ) -> None:
        self._settings, self._home = settings, home
        team = Team(settings)
        self._followers = Followers(team, home, stopping)
        with ExitStack() as on_error:
            on_error.callback(self._followers.end, 0.0)
            team.take_cores(LEADER)
            self._process = Process(self._open(bundle, 1), team, LEADER, stopping)
            self.readiness = self._process.readiness
            answers = Answers(
                self._process.reason,
                self._process.pages,
                metrics=self._metrics_page,
                swap=Swapper(self, home, stopping).swap,
            )
            self._private = PrivateServer(settings.private_host, settings.private_port, answers)
            on_error.pop_all()
        self._process.start()

    def fault(self) -> str | None:
        """Why the service can't go on; None while it can."""
        return self._followers.fault() or self._process.fault()

    def stop(self) -> None:
        """Answer what has come in, then end Granian in every process.

        Raises:
            LaunchError: a follower didn't end well.
        """
        deadline = time.monotonic() + STOP_S
        self._followers.terminate()
        self._process.stop()
        fault = self._followers.end(deadline)
        self._private.stop()
        if not self._process.has_ended:
            # Python can't end a thread that is stuck in a library, and wouldn't end with it.
            shutil.rmtree(self._home, ignore_errors=True)
            os._exit(1)
        if fault:
            raise LaunchError(fault)

    @property
    def served(self) -> Served:
        """The bundle that is served, and what is made of it."""
        return self._process.opened.served

    def replace(self, bundle: Bundle, version: int) -> None:
        """Have every process serve a bundle from now on, once it has given the golden answers.

        See serve.launcher.swapping.Replacing.

        Raises:
            ServeError: the bundle isn't fit to be served; nothing has changed.
        """
        prove_engine(bundle, self._settings)  # in a process of its own: it might crash
        self._process.take(self._open(bundle, version))

    def end(self, old: Served) -> None:
        """Do nothing: the old service goes with the last batch that holds it."""

    def _open(self, bundle: Bundle, version: int) -> Opened:
        """Open a copy of a bundle; the followers open it too, and serve it at once."""
        copy = copy_bundle(self._home, bundle, version)
        with self._followers.opening(version):
            return open_model(copy, version, self._settings)

    def _metrics_page(self) -> bytes:
        folder = self._home if self._settings.processes > 1 else None
        ready = self._process.reason() is None
        return read_metrics(folder, self.served.bundle.manifest, self._settings, ready)
