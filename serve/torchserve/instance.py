"""One running TorchServe: started, watched, swapped, drained, stopped."""

import threading
from pathlib import Path

from serve.bundle.manifest import Bundle
from serve.errors import LaunchError
from serve.launcher.metrics import read_metrics
from serve.launcher.private import Answers, PrivateServer
from serve.launcher.proof import prove_engine
from serve.launcher.readiness import Readiness
from serve.launcher.settings import Settings
from serve.launcher.swapping import Swapper
from serve.torchserve import process
from serve.torchserve.drain import Drain
from serve.torchserve.management import Management
from serve.torchserve.silence import Silence
from serve.torchserve.sockets import ask, check_home, metrics_socket
from serve.torchserve.store import activity_folder, add_models, metrics_folder
from serve.torchserve.versions import Versions

METRICS_S = 2.0  # longest wait for TorchServe's own page of metrics


class Instance:
    """TorchServe, the private port beside it, and what it serves.

    Its arguments and errors are those of serve.launcher.watching.Instance.
    """

    def __init__(
        self, bundle: Bundle, settings: Settings, home: Path, stopping: threading.Event
    ) -> None:
        self._settings, self._home, self._stopping = settings, home, stopping
        check_home(home)
        prove_engine(bundle, settings)
        served = add_models(home, bundle, 1, settings)
        management = Management(home)
        self.readiness = Readiness(served.canaries, settings, management.ready_workers)
        self._versions = Versions(served, settings, home, self.readiness)
        answers = Answers(
            reason=self._reason,
            pages=lambda: self._versions.served.pages,
            metrics=self._metrics,
            swap=Swapper(self._versions, home, stopping).swap,
        )
        self._process = process.start(settings, home)
        self._silence = Silence(activity_folder(home))
        try:
            self._private = PrivateServer(settings.private_host, settings.private_port, answers)
        except LaunchError:
            process.stop(self._process)
            raise

    def fault(self) -> str | None:
        """Why TorchServe can't go on; None while it can."""
        code = self._process.poll()
        if code is not None:
            return f"TorchServe died with exit code {code}"
        return self._silence.fault(self.readiness.unanswered)

    def stop(self) -> None:
        """Answer what has come in, then end TorchServe."""
        try:
            if self._process.poll() is None and self.readiness.been_ready:
                Drain(self._settings, self._home, self.readiness).wait_for(set(self._versions.live))
        finally:
            process.stop(self._process)
            self._private.stop()

    def _reason(self) -> str | None:
        return "stopping" if self._stopping.is_set() else self.readiness.reason

    def _metrics(self) -> bytes:
        """The launcher's metrics, then TorchServe's own: a replica is one target to scrape."""
        manifest, ready = self._versions.served.bundle.manifest, self._reason() is None
        ours = read_metrics(metrics_folder(self._home), manifest, self._settings, ready)
        return ours + torchserve_metrics(self._home)


def torchserve_metrics(home: Path) -> bytes:
    """TorchServe's own page (its queue's latency, among others); empty if it doesn't answer."""
    try:
        status, page = ask(metrics_socket(home), "GET", "/metrics", METRICS_S)
    except LaunchError:
        return b""
    return page if status == 200 else b""
