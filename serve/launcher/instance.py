"""One running TorchServe: started, watched, swapped, drained, stopped.

Nothing of this loses a request. TorchServe by itself would: it stops, and unregisters a model,
whatever its workers are doing. Two facts make waiting possible. The requests of one version of an
endpoint wait in one queue, so once a canary has been answered, every request that came before it
has reached a worker; and the workers tell which batches they are in (serve.activity).
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from serve.activity import is_over, under_way
from serve.bundle import ENDPOINTS, Bundle, load_bundle
from serve.errors import LaunchError, ServeError
from serve.launcher import torchserve
from serve.launcher.management import Management
from serve.launcher.metadata import pages
from serve.launcher.metrics import read_metrics
from serve.launcher.private import Answers, PrivateServer
from serve.launcher.proof import prove_engine
from serve.launcher.readiness import Readiness, ask, make_canaries, send
from serve.launcher.torchserve import Settings

logger = logging.getLogger(__name__)

DRAIN_S = 20.0  # for every request that has come in to be answered
LAST_BYTES_S = 0.3  # from a worker's end of a batch to the last byte on its callers' sockets
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
        self._version, self._former = 1, 0  # TorchServe's numbers of what is and was served
        self.bundle = torchserve.add_models(home, bundle, self._version, settings)
        self.readiness = Readiness(self.bundle, settings)
        self._pages = pages(self.bundle, settings.precision)
        self._management = Management(settings.management_url)
        self._swapping = threading.Lock()
        self._private = PrivateServer(
            settings.host,
            settings.private_port,
            Answers(
                reason=self._reason,
                pages=lambda: self._pages,
                metrics=lambda: read_metrics(home, self.bundle, settings, self._reason() is None),
                swap=self.swap,
            ),
        )
        self.process = torchserve.start(settings, home)

    def stop(self) -> None:
        """Answer what has come in, then end TorchServe."""
        if self.process.poll() is None:
            self._finish(self._version)
        torchserve.stop(self.process)
        self._private.shutdown()

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
            if folder is None and not self._former:
                raise LaunchError("there is nothing to go back to: no swap has been made")
            former = torchserve.bundle_folder(self._home, self._former)
            return self._swap(load_bundle(former if folder is None else Path(folder)))
        finally:
            self._swapping.release()

    def _swap(self, chosen: Bundle) -> dict[str, Any]:
        before, old, new = self.bundle, self._version, max(self._version, self._former) + 1
        bundle = torchserve.add_models(self._home, chosen, new, self._settings)
        try:
            prove_engine(bundle, self._settings)
            self._register(bundle, new)
            self._make_default(bundle, old, new)
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
        self._finish(old)
        self._unregister(old, ENDPOINTS)
        return told

    def _register(self, bundle: Bundle, version: int) -> None:
        """Start a version's workers, beside those that serve, and prove their answers."""
        begun = list[str]()
        try:
            for endpoint in ENDPOINTS:
                begun.append(endpoint)
                folder = torchserve.model_folder(self._home, endpoint, version)
                self._management.register(endpoint, folder)
            for endpoint, canary in make_canaries(bundle, self._settings).items():
                fault, _ = ask(requests.Session(), self._url(endpoint, version), canary)
                if fault:
                    raise LaunchError(f"{endpoint} of the new bundle: {fault}")
        except LaunchError:
            self._unregister(version, begun)
            raise

    def _make_default(self, bundle: Bundle, old: int, new: int) -> None:
        """Send every endpoint's requests to the new version; all of them or none."""
        changed = list[str]()
        with self.readiness.changing:
            try:
                for endpoint in ENDPOINTS:
                    self._management.set_default(endpoint, new)
                    changed.append(endpoint)
            except LaunchError:
                for endpoint in changed:
                    self._management.set_default(endpoint, old)
                self._unregister(new, ENDPOINTS)
                raise
            self.readiness.expect(bundle)
            self.bundle, self._pages = bundle, pages(bundle, self._settings.precision)

    def _unregister(self, version: int, endpoints: Sequence[str]) -> None:
        """Stop a version's workers; one that TorchServe doesn't know is no fault."""
        for endpoint in endpoints:
            try:
                self._management.unregister(endpoint, version)
            except LaunchError as error:
                logger.warning("version %d of %s may still be there: %s", version, endpoint, error)

    def _finish(self, version: int) -> None:
        """Wait until every request that has come in for a version is answered; DRAIN_S at most."""
        deadline = time.monotonic() + DRAIN_S
        with ThreadPoolExecutor(len(ENDPOINTS)) as pool:
            passed = pool.map(lambda name: self._pass_through(name, version, deadline), ENDPOINTS)
            queues_empty = all(list(passed))
        batches = under_way(torchserve.activity_folder(self._home)).items()
        if queues_empty and wait_until(lambda: all(is_over(*batch) for batch in batches), deadline):
            time.sleep(LAST_BYTES_S)
        else:
            logger.warning("requests may be lost: not all were answered within %.0f s", DRAIN_S)

    def _pass_through(self, endpoint: str, version: int, deadline: float) -> bool:
        """Queue up behind every request of an endpoint; whether our turn came in time."""
        canary = make_canaries(self.bundle, self._settings)[endpoint]
        with requests.Session() as session:

            def is_answered() -> bool:
                left_s = max(POLL_S, deadline - time.monotonic())
                try:
                    reply = send(session, self._url(endpoint, version), canary, left_s)
                except requests.RequestException:
                    return False
                return reply.ok  # a full queue, or a dead worker, is not

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
