"""Wait until every request that has come in is answered.

TorchServe by itself loses requests: it stops, and unregisters a model, whatever its workers are
doing. Two facts make waiting possible. The requests of one version of an endpoint wait in one
queue, so once a canary has been answered, every request that came before it has reached a worker.
And the workers write down which batches they are in (serve.torchserve.activity).
"""

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from serve.endpoints import ENDPOINTS
from serve.launcher.readiness import Readiness, loopback_session, send_canary
from serve.launcher.settings import Settings
from serve.launcher.watching import DRAIN_S
from serve.torchserve.activity import is_over, under_way
from serve.torchserve.store import activity_folder

logger = logging.getLogger(__name__)

HANDOVER_S = 0.3  # for TorchServe to hand a batch to a worker, and the replies to the callers
POLL_S = 0.02


class Drain:
    """Waits until a running TorchServe has answered its requests.

    Args:
        settings: of the service.
        home: the service's folder.
        readiness: of the service; it holds the canaries.
    """

    def __init__(self, settings: Settings, home: Path, readiness: Readiness) -> None:
        self._settings, self._home, self._readiness = settings, home, readiness

    def wait_for(self, versions: Iterable[int]) -> None:
        """Wait until every request to these versions is answered; DRAIN_S at most."""
        deadline = time.monotonic() + DRAIN_S
        queues = [(endpoint, version) for version in versions for endpoint in ENDPOINTS]
        with ThreadPoolExecutor(len(queues)) as pool:
            waiting = [pool.submit(self._pass_through, *queue, deadline) for queue in queues]
        passed = [each.result() for each in waiting]
        time.sleep(HANDOVER_S)
        batches = under_way(activity_folder(self._home).iterdir()).items()
        if all(passed) and wait_until(lambda: all(is_over(*batch) for batch in batches), deadline):
            time.sleep(HANDOVER_S)
        else:
            logger.warning("requests may be lost: not all were answered within %.0f s", DRAIN_S)

    def _pass_through(self, endpoint: str, version: int, deadline: float) -> bool:
        """Whether a canary, sent behind every request in a queue, was answered in time."""
        canary, token = self._readiness.canaries[endpoint], self._settings.canary_token
        url = version_url(self._settings, endpoint, version)
        with loopback_session() as session:

            def is_answered() -> bool:
                left_s = max(POLL_S, deadline - time.monotonic())
                try:
                    reply = send_canary(session, url, canary, token, left_s)
                except requests.RequestException:
                    return False
                return reply.status_code < 500  # 5xx means a full queue or a dead worker

            return wait_until(is_answered, deadline)


def version_url(settings: Settings, endpoint: str, version: int) -> str:
    """The URL of one version of an endpoint, whether it is the default version or not."""
    return f"{settings.inference_url}/predictions/{endpoint}/{version}"


def wait_until(holds: Callable[[], bool], deadline: float) -> bool:
    """Wait for a condition until ``deadline``, a time.monotonic; whether it came true."""
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
