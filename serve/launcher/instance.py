"""One running TorchServe: started, watched, swapped, drained, stopped.

Nothing of this loses a request. TorchServe by itself would: it stops, and unregisters a model,
whatever its workers are doing. Two facts make waiting possible. The requests of one version of an
endpoint wait in one queue, so once a canary has been answered, every request that came before it
has reached a worker; and the workers tell which batches they are in (serve.activity).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from serve.activity import is_over, under_way
from serve.bundle import ENDPOINTS, Bundle, load_bundle
from serve.errors import LaunchError, ServeError
from serve.launcher import torchserve
from serve.launcher.management import Management, loopback_session
from serve.launcher.metadata import pages
from serve.launcher.metrics import read_metrics
from serve.launcher.private import Answers, PrivateServer
from serve.launcher.proof import prove_engine
from serve.launcher.readiness import Canary, Readiness, ask, make_canaries, send
from serve.launcher.torchserve import Settings

logger = logging.getLogger(__name__)

DRAIN_S = 20.0  # for every request that has come in to be answered
HANDOVER_S = 0.3  # for TorchServe to hand a batch to a worker, and its answers to the callers
POLL_S = 0.02


class Instance:
    """TorchServe, its private port, and what it serves.

    Attributes:
        bundle: what it serves: a private copy.
        process: TorchServe's JVM.
        readiness: whether it is ready.

    Args:
        bundle: to serve.
        settings: how.
        home: an empty directory that outlives the instance.
        stopping: set once nobody should be sent here any more.

    Raises:
        ServeError: it can't be started.
    """

    def __init__(
        self, bundle: Bundle, settings: Settings, home: Path, stopping: threading.Event
    ) -> None:
        self._settings, self._home, self._stopping = settings, home, stopping
        self._version, self._former, self._last = 1, 0, 1  # TorchServe's numbers, never used twice
        self._live = {1}  # versions that requests may be waiting for
        self.bundle = torchserve.add_models(home, bundle, self._version, settings)
        self.readiness = Readiness(self.bundle, settings)
        self._pages = pages(self.bundle, settings.precision)
        self._management = Management(settings.management_url)
        self._session = loopback_session()
        self._swapping = threading.Lock()
        self.process = torchserve.start(settings, home)
        try:
            self._private = self._open_private_port()
        except LaunchError:
            torchserve.stop(self.process)
            raise

    def _open_private_port(self) -> PrivateServer:
        answers = Answers(
            reason=self._reason,
            pages=lambda: self._pages,
            metrics=lambda: read_metrics(
                self._home, self.bundle, self._settings, self._reason() is None
            ),
            swap=self.swap,
        )
        return PrivateServer(self._settings.private_host, self._settings.private_port, answers)

    def stop(self) -> None:
        """Answer what has come in, then end TorchServe."""
        try:
            if self.process.poll() is None and self.readiness.been_ready:
                self._finish(set(self._live))
        finally:
            torchserve.stop(self.process)
            self._private.stop()

    def _reason(self) -> str | None:
        return "stopping" if self._stopping.is_set() else self.readiness.reason

    def swap(self, folder: str | None) -> dict[str, Any]:
        """Serve another bundle, without failing a request; returns once the former has gone.

        Args:
            folder: of the bundle, absolute; None goes back to the one served before.

        Returns:
            Name, version and digest of what is served now, and the digest of what was.

        Raises:
            ServeError: the bundle isn't fit to be served, and all is as before; or another swap
                is under way.
        """
        if not self._swapping.acquire(blocking=False):
            raise LaunchError("another swap is under way")
        try:
            if self._stopping.is_set():
                raise LaunchError("the service is stopping")
            if folder is None and not self._former:
                raise LaunchError("there is nothing to go back to: no swap has been made")
            former = torchserve.bundle_folder(self._home, self._former)
            return self._swap(load_bundle(former if folder is None else Path(folder)))
        finally:
            self._swapping.release()

    def _swap(self, chosen: Bundle) -> dict[str, Any]:
        before, old = self.bundle, self._version
        self._last = new = self._last + 1
        try:
            bundle = torchserve.add_models(self._home, chosen, new, self._settings)
            prove_engine(bundle, self._settings)
            canaries = make_canaries(bundle, self._settings)
            self._register(canaries, new)
            self._make_default(bundle, canaries, old, new)
        except ServeError:
            torchserve.remove_models(self._home, new)
            raise
        torchserve.remove_models(self._home, self._former)
        self._version, self._former = new, old
        told = {
            "name": bundle.manifest.name,
            "version": bundle.manifest.version,
            "digest": bundle.manifest.digest,
            "former_digest": before.manifest.digest,
        }
        logger.info("swapped: %s", " ".join(f"{key}={value}" for key, value in told.items()))
        self._finish({old})
        self._management.unregister(ENDPOINTS, old)
        self._live -= {old}
        return told

    def _register(self, canaries: Mapping[str, Canary], version: int) -> None:
        """Start a version's workers, beside those that serve, and prove their answers."""
        begun = list[str]()
        try:
            for endpoint in ENDPOINTS:
                begun.append(endpoint)
                folder = torchserve.model_folder(self._home, endpoint, version)
                self._management.register(endpoint, folder)
            for endpoint, canary in canaries.items():
                fault, _ = ask(self._session, self._url(endpoint, version), canary)
                if fault:
                    raise LaunchError(f"{endpoint} of the new bundle: {fault}")
        except LaunchError:
            self._management.unregister(begun, version)
            raise

    def _make_default(
        self, bundle: Bundle, canaries: dict[str, Canary], old: int, new: int
    ) -> None:
        """Send every endpoint's requests to the new version; all of them or none."""
        told = pages(bundle, self._settings.precision)
        tried = list[str]()
        with self.readiness.changing:
            self._live |= {new}
            try:
                for endpoint in ENDPOINTS:
                    tried.append(endpoint)
                    self._management.set_default(endpoint, new)
            except LaunchError:
                for endpoint in tried:
                    with suppress(LaunchError):  # the first one is what is told
                        self._management.set_default(endpoint, old)
                self._finish({new})
                self._management.unregister(ENDPOINTS, new)
                self._live -= {new}
                raise
            self.readiness.canaries, self.bundle, self._pages = canaries, bundle, told

    def _finish(self, versions: Iterable[int]) -> None:
        """Wait until all that has come in for some versions is answered; DRAIN_S at most."""
        deadline = time.monotonic() + DRAIN_S
        ways = [(endpoint, version) for version in versions for endpoint in ENDPOINTS]
        with ThreadPoolExecutor(len(ways)) as pool:
            passed = list(pool.map(lambda way: self._pass_through(way[0], way[1], deadline), ways))
        time.sleep(HANDOVER_S)
        batches = under_way(torchserve.activity_folder(self._home)).items()
        if all(passed) and wait_until(lambda: all(is_over(*batch) for batch in batches), deadline):
            time.sleep(HANDOVER_S)
        else:
            logger.warning("requests may be lost: not all were answered within %.0f s", DRAIN_S)

    def _pass_through(self, endpoint: str, version: int, deadline: float) -> bool:
        """Queue up behind every request of an endpoint; whether our turn came in time."""
        canary = self.readiness.canaries[endpoint]
        with loopback_session() as session:

            def is_answered() -> bool:
                left_s = max(POLL_S, deadline - time.monotonic())
                try:
                    reply = send(session, self._url(endpoint, version), canary, left_s)
                except requests.RequestException:
                    return False
                return reply.status_code < 500  # as a full queue's and a dead worker's are not

            return wait_until(is_answered, deadline)

    def _url(self, endpoint: str, version: int) -> str:
        """Where one version of an endpoint is asked, default or not."""
        return f"{self._settings.inference_url}/predictions/{endpoint}/{version}"


def wait_until(holds: Callable[[], bool], deadline: float) -> bool:
    """Whether a condition came true in time."""
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
