"""Watch a service from its start: log READY once it is, and give up when it stays broken."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from serve.bundle.manifest import Manifest
from serve.endpoints import ENDPOINTS
from serve.errors import LaunchError
from serve.launcher.readiness import Readiness
from serve.launcher.settings import Settings

logger = logging.getLogger(__name__)

START_S = 180.0  # for every worker to import torch, load its engine and pass the golden check
UNREADY_S = 30.0  # for which an endpoint may have no ready worker, or answer wrongly
# For which an endpoint may have fewer workers than it should. TorchServe starts a worker again and
# again, and gives up after 300 s of failures.
INCOMPLETE_S = 180.0
CHECK_EVERY_S = 0.5
STARTING_CHECK_EVERY_S = 0.1  # until the service is ready for the first time
DRAIN_S = 20.0  # for a service that stops to answer every request that has come in


class Instance(Protocol):
    """One running server; its class is called Instance in the server's module.

    Its constructor takes the bundle, the settings, a folder that outlives it, and an event that is
    set once the service is stopping. It raises ServeError where the server can't be started.

    Attributes:
        readiness: whether the service is ready.
    """

    readiness: Readiness

    def fault(self) -> str | None:
        """Why the server can't go on; None while it can."""

    def stop(self) -> None:
        """Answer what has come in, then end the server."""


def watch(
    instance: Instance, stopping: threading.Event, on_first_ready: Callable[[], None]
) -> None:
    """Check readiness until told to stop.

    Raises:
        LaunchError: the server can't go on, was not ready within START_S, or had an endpoint
            without a ready worker for UNREADY_S, or without one of its workers for INCOMPLETE_S.
    """
    readiness = instance.readiness
    was_ready, patience = False, START_S
    last_working = last_complete = time.monotonic()
    while not stopping.wait(CHECK_EVERY_S if was_ready else STARTING_CHECK_EVERY_S):
        if fault := instance.fault():
            raise LaunchError(fault)
        before = readiness.reason
        if readiness.check() and not was_ready:
            was_ready, patience = True, UNREADY_S
            on_first_ready()
        elif readiness.reason is None and before is not None:
            logger.info("ready again")
        elif readiness.reason != before:
            logger.log(
                logging.WARNING if was_ready else logging.INFO, "waiting: %s", readiness.reason
            )
        now = time.monotonic()
        if was_ready and readiness.working:
            last_working = now
        if was_ready and readiness.complete:
            last_complete = now
        if now - last_working > patience:
            raise LaunchError(f"not ready for {patience:.0f} s: {readiness.reason}")
        if now - last_complete > INCOMPLETE_S:
            raise LaunchError(f"a worker is missing for {INCOMPLETE_S:.0f} s: {readiness.reason}")


def announce(manifest: Manifest, settings: Settings) -> None:
    """Log that the service is up, and where."""
    logger.info(
        "READY %s/predictions/{%s} and http://127.0.0.1:%d/ready model %s version %s digest %s",
        settings.inference_url,
        ",".join(ENDPOINTS),
        settings.private_port,
        manifest.name,
        manifest.version,
        manifest.digest[:12],
    )
