"""Serve another bundle with a running TorchServe, without failing a request.

The new version's workers start beside the old version's. Once the new workers answer rightly, they
become the default of all endpoints. Then the old workers finish their requests, and stop.
"""

from contextlib import suppress
from pathlib import Path

from serve.bundle.errors import ServeError
from serve.bundle.manifest import Bundle
from serve.endpoints import ENDPOINTS
from serve.errors import LaunchError
from serve.launcher.bundles import Served
from serve.launcher.proof import prove_engine
from serve.launcher.readiness import Readiness, loopback_session, try_canary
from serve.launcher.settings import Settings
from serve.torchserve.drain import Drain, version_url
from serve.torchserve.management import Management
from serve.torchserve.store import add_models, model_folder, remove_models


class Versions:
    """The versions that a running TorchServe serves; see serve.launcher.swapping.Replacing.

    Attributes:
        served: what callers get now.
        live: the versions that requests may be waiting for.

    Args:
        served: what TorchServe was started on.
        settings: of the service.
        home: the service's folder.
        readiness: of the service; its canaries change with the bundle.
    """

    def __init__(
        self, served: Served, settings: Settings, home: Path, readiness: Readiness
    ) -> None:
        self.served, self.live = served, {served.version}
        self._settings, self._home, self._readiness = settings, home, readiness
        self._drain = Drain(settings, home, readiness)
        self._management = Management(home)

    def replace(self, bundle: Bundle, version: int) -> None:
        """Start workers on a bundle, and send every request to them from then on.

        Raises:
            ServeError: the bundle isn't fit to be served; nothing has changed.
        """
        try:
            new = add_models(self._home, bundle, version, self._settings)
            prove_engine(new.bundle, self._settings)
            self._register(new)
            self._make_default(new)
        except ServeError:
            remove_models(self._home, version)
            raise

    def end(self, old: Served) -> None:
        """Stop a version's workers once they have answered all that has come in for them."""
        self._drain.wait_for({old.version})
        self._management.unregister(ENDPOINTS, old.version)
        self.live -= {old.version}

    def _register(self, new: Served) -> None:
        """Start a version's workers beside those that serve, and check their answers."""
        begun = list[str]()
        try:
            for endpoint in ENDPOINTS:
                begun.append(endpoint)
                folder = model_folder(self._home, endpoint, new.version)
                workers = self._settings.worker_count
                self._management.register(endpoint, folder, new.version, workers)
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
                self.end(new)
                raise
            self.served, self._readiness.canaries = new, new.canaries
