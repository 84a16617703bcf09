"""TorchServe's management API, as far as the launcher needs it."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from serve.errors import LaunchError
from serve.torchserve.sockets import ask, management_socket

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
REGISTER_S = 120.0  # for the workers to import torch and pass the golden check


class Management:
    """The management API of one TorchServe.

    The methods raise LaunchError where TorchServe doesn't answer, or not as expected.

    Args:
        home: the service's folder.
    """

    def __init__(self, home: Path) -> None:
        self._socket = management_socket(home)

    def ready_workers(self, endpoint: str) -> int:
        """How many workers of the endpoint's default version are READY."""
        models = self._ask("GET", f"/models/{endpoint}")
        try:
            return sum(worker["status"] == "READY" for worker in models[0]["workers"])
        except (LookupError, TypeError) as error:
            raise LaunchError(f"TorchServe describes {endpoint} in an unknown way") from error

    def register(self, endpoint: str, folder: Path) -> None:
        """Add the version in ``folder`` of the model store, and wait for its workers."""
        question = {"url": folder.name, "model_name": endpoint, "synchronous": "true"}
        self._ask("POST", f"/models?{urlencode(question)}", REGISTER_S)

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

    def _ask(self, method: str, target: str, timeout_s: float = TIMEOUT_S) -> Any:
        """The JSON of a 2xx answer."""
        status, body = ask(self._socket, method, target, timeout_s)
        if not 200 <= status < 300:
            raise LaunchError(f"TorchServe answered {method} {target} with HTTP {status}")
        try:
            return json.loads(body)
        except ValueError as error:
            raise LaunchError(f"TorchServe answered {method} {target} without JSON") from error
