"""What every server's swap has in common: one at a time, what to go back to, and what is told."""

import logging
import shutil
import threading
from pathlib import Path
from typing import Any, Protocol

from serve.bundle.errors import ServeError
from serve.bundle.manifest import Bundle, load_bundle
from serve.errors import LaunchError
from serve.launcher.bundles import Served, bundle_folder

logger = logging.getLogger(__name__)

NO_VERSION = 0  # versions begin with 1


class Replacing(Protocol):
    """How a server serves another bundle without failing a request."""

    @property
    def served(self) -> Served:
        """What is served now."""

    def replace(self, bundle: Bundle, version: int) -> None:
        """Make a bundle what is served, as this version, once it has proven itself.

        Raises:
            ServeError: the bundle isn't fit to be served; nothing has changed.
        """

    def end(self, old: Served) -> None:
        """Return once a bundle that is no longer served has answered its last request."""


class Swapper:
    """Swaps and rollbacks of one running service.

    Args:
        replacing: the server's part.
        home: the service's folder.
        stopping: set once the service is stopping.
    """

    def __init__(self, replacing: Replacing, home: Path, stopping: threading.Event) -> None:
        self._replacing, self._home, self._stopping = replacing, home, stopping
        self._previous = NO_VERSION  # the version that --rollback goes back to
        self._newest = replacing.served.version
        self._swapping = threading.Lock()

    def swap(self, folder: str | None) -> dict[str, Any]:
        """Serve another bundle; returns once the old bundle has answered its last request.

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
            old = self._replacing.served
            self._newest += 1
            try:
                self._replacing.replace(self._chosen(folder), self._newest)
            except ServeError:
                shutil.rmtree(bundle_folder(self._home, self._newest), ignore_errors=True)
                raise
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

    def _retire(self, old: Served) -> dict[str, Any]:
        """Let the old bundle finish, and keep it for --rollback."""
        shutil.rmtree(bundle_folder(self._home, self._previous), ignore_errors=True)
        self._previous = old.version
        now = self._replacing.served.bundle.manifest
        told = {
            "name": now.name,
            "version": now.version,
            "digest": now.digest,
            "former_digest": old.bundle.manifest.digest,
        }
        logger.info("swapped: %s", " ".join(f"{key}={value}" for key, value in told.items()))
        self._replacing.end(old)
        return told
