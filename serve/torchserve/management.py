"""TorchServe's management API, as far as the launcher needs it."""

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from serve.errors import LaunchError
from serve.torchserve.sockets import ask, management_socket

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
START_S = 120.0  # for the workers to import torch and pass the golden check
POLL_S = 0.2  # between two looks at workers that are starting


class Management:
    """The management API of one TorchServe.

    The methods raise LaunchError where TorchServe doesn't answer, or not as expected.

    Args:
        home: the service's folder.
    """

    def __init__(self, home: Path) -> None:
        self._socket = management_socket(home)

    def ready_workers(self, endpoint: str, version: int | None = None) -> int:
        """How many workers of a version, by default the endpoint's default one, are READY."""
        path = f"/models/{endpoint}" if version is None else f"/models/{endpoint}/{version}"
        models = self._ask("GET", path)
        try:
            return sum(worker["status"] == "READY" for worker in models[0]["workers"])
        except (LookupError, TypeError) as error:
            raise LaunchError(f"TorchServe describes {endpoint} in an unknown way") from error

    def register(self, endpoint: str, folder: Path, version: int, workers: int) -> None:
        """Add the version in ``folder`` of the model store, start its workers, wait for them.

        TorchServe could wait for them, too, but with a thread that serves callers.
        """
        question = {"url": folder.name, "model_name": endpoint, "initial_workers": 0}
        self._ask("POST", f"/models?{urlencode(question)}")
        self._ask("PUT", f"/models/{endpoint}/{version}?min_worker={workers}&max_worker={workers}")
        deadline = time.monotonic() + START_S
        while (ready := self.ready_workers(endpoint, version)) < workers:
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"{endpoint}: {ready} of {workers} new workers ready after {START_S:.0f} s"
                )
            time.sleep(POLL_S)

    def set_default(self, endpoint: str, version: int) -> None:
        """Send the endpoint's requests to a version from now on."""
        self._ask("PUT", f"/models/{endpoint}/{version}/set-default")

    def unregister(self, endpoints: Iterable[str], version: int) -> None:
        """Stop a version's workers, whatever they are doing; a failure is logged, not raised."""
        for endpoint in endpoints:
            try:
                self._ask("DELETE", f"/models/{endpoint}/{version}")
            except LaunchError as error:
                logger.warning("version %d of %s may still be there: %s", version, endpoint, error)

    def _ask(self, method: str, target: str) -> Any:
        """The JSON of a 2xx answer."""
        status, body = ask(self._socket, method, target, TIMEOUT_S)
        if not 200 <= status < 300:
            raise LaunchError(f"TorchServe answered {method} {target} with HTTP {status}")
        try:
            return json.loads(body)
        except ValueError as error:
            raise LaunchError(f"TorchServe answered {method} {target} without JSON") from error
