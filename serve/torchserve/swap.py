"""Serve another bundle with a running TorchServe, without failing a request.

The new version's workers start beside the old version's. Once the new workers answer rightly, they
become the default of all endpoints. Then the old workers finish their requests, and stop.
"""

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.bundle.errors import ServeError
from serve.bundle.manifest import Bundle, load_bundle
from serve.canary import Canary
from serve.endpoints import ENDPOINTS, make_canaries
from serve.errors import LaunchError
from serve.launcher.loopback import loopback_session
from serve.launcher.metadata import pages
from serve.launcher.proof import prove_engine
from serve.launcher.readiness import Readiness, try_canary
from serve.launcher.settings import Settings
from serve.torchserve.drain import Drain, version_url
from serve.torchserve.management import Management
from serve.torchserve.store import add_models, bundle_folder, model_folder, remove_models

logger = logging.getLogger(__name__)

NO_VERSION = 0  # versions begin with 1


@dataclass(frozen=True)
class Served:
    """A bundle in TorchServe's model store, and what is made of it.

    Attributes:
        version: TorchServe's number for the bundle, never used twice.
        bundle: the service's own copy.
        pages: see serve.launcher.metadata.pages.
        canaries: endpoint → canary.
    """

    version: int
    bundle: Bundle
    pages: Mapping[str, dict[str, Any]]
    canaries: Mapping[str, Canary]


def add_served(home: Path, bundle: Bundle, version: int, settings: Settings) -> Served:
    """Add a bundle to the model store. Its workers don't start yet.

    Raises:
        ServeError: the bundle can't be copied, or changed meanwhile.
    """
    copy = add_models(home, bundle, version, settings)
    told = pages(copy, settings.precision)
    return Served(version, copy, told, make_canaries(copy, settings.precision))


class Swapper:
    """Replaces the bundle that a running TorchServe serves.

    Attributes:
        served: what callers get now.
        live: the versions that requests may be waiting for.

    Args:
        served: what TorchServe was started on.
        settings: of the service.
        home: the service's folder.
        readiness: of the service; its canaries change with the bundle.
        stopping: set once the service is stopping.
    """

    def __init__(
        self,
        served: Served,
        settings: Settings,
        home: Path,
        readiness: Readiness,
        stopping: threading.Event,
    ) -> None:
        self.served, self.live = served, {served.version}
        self._settings, self._home, self._stopping = settings, home, stopping
        self._readiness, self._drain = readiness, Drain(settings, home, readiness)
        self._management = Management(settings)
        self._previous = NO_VERSION  # the version that --rollback goes back to
        self._newest = served.version
        self._swapping = threading.Lock()

    def swap(self, folder: str | None) -> dict[str, Any]:
        """Serve another bundle; returns once the workers of the old bundle have gone.

        Args:
            folder: of the bundle, absolute; None goes back to the previous bundle.

        Returns:
            Name, version and digest of the bundle now served, and the previous bundle's digest.

        Raises:
            ServeError: the bundle isn't fit to be served, or another swap is under way; this call
                has changed nothing.
        """
        if not self._swapping.acquire(blocking=False):
            raise LaunchError("another swap is under way")
        try:
            if self._stopping.is_set():
                raise LaunchError("the service is stopping")
            old = self.served
            self._replace(self._chosen(folder))
            return self._retire(old)
        finally:
            self._swapping.release()

    def _chosen(self, folder: str | None) -> Bundle:
        """The bundle in a folder, or for None the previous bundle."""
        if folder is not None:
            return load_bundle(Path(folder))
        if self._previous == NO_VERSION:
            raise LaunchError("there is nothing to go back to: no swap has been made")
        return load_bundle(bundle_folder(self._home, self._previous))

    def _replace(self, bundle: Bundle) -> None:
        """Start workers on a bundle, and send every request to them from then on."""
        self._newest += 1
        try:
            new = add_served(self._home, bundle, self._newest, self._settings)
            prove_engine(new.bundle, self._settings)
            self._register(new)
            self._make_default(new)
        except ServeError:
            remove_models(self._home, self._newest)
            raise

    def _register(self, new: Served) -> None:
        """Start a version's workers beside those that serve, and check their answers."""
        begun = list[str]()
        try:
            for endpoint in ENDPOINTS:
                begun.append(endpoint)
                folder = model_folder(self._home, endpoint, new.version)
                self._management.register(endpoint, folder)
            with loopback_session() as session:
                for endpoint, canary in new.canaries.items():
                    url = version_url(self._settings, endpoint, new.version)
                    fault, _ = try_canary(session, url, canary, self._settings.canary_token)
                    if fault:
                        raise LaunchError(f"{endpoint} of the new bundle: {fault}")
        except LaunchError:
            self._management.unregister(begun, new.version)
            raise

    def _make_default(self, new: Served) -> None:
        """Make the new version the default of every endpoint; after a fault, of no endpoint."""
        old, tried = self.served, list[str]()
        with self._readiness.changing:
            self.live |= {new.version}
            try:
                for endpoint in ENDPOINTS:
                    tried.append(endpoint)
                    self._management.set_default(endpoint, new.version)
            except LaunchError:
                for endpoint in tried:
                    with suppress(LaunchError):  # the caller is told of the first failure
                        self._management.set_default(endpoint, old.version)
                self._remove(new)
                raise
            self.served, self._readiness.canaries = new, new.canaries

    def _retire(self, old: Served) -> dict[str, Any]:
        """Let the old version's workers finish, and keep its bundle for --rollback."""
        remove_models(self._home, self._previous)
        self._previous = old.version
        now = self.served.bundle.manifest
        told = {
            "name": now.name,
            "version": now.version,
            "digest": now.digest,
            "former_digest": old.bundle.manifest.digest,
        }
        logger.info("swapped: %s", " ".join(f"{key}={value}" for key, value in told.items()))
        self._remove(old)
        return told

    def _remove(self, served: Served) -> None:
        """Stop a version's workers once they have answered all that has come in for them."""
        self._drain.wait_for({served.version})
        self._management.unregister(ENDPOINTS, served.version)
        self.live -= {served.version}
