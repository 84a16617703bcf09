"""TorchServe's management API: the four things the launcher asks of it."""

from pathlib import Path
from typing import Any

import requests

from serve.errors import LaunchError

TIMEOUT_S = 5.0
REGISTER_S = 120.0  # for the workers to import torch and pass the golden check


class Management:
    """The management API of one TorchServe, on loopback.

    Every method raises LaunchError where TorchServe doesn't answer, or not as expected.

    Args:
        url: e.g. ``http://127.0.0.1:8081``.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy stands between us and loopback

    def ready_workers(self, endpoint: str) -> int:
        """How many workers of the endpoint's default version are READY."""
        (model,) = self._ask("GET", f"/models/{endpoint}")
        return sum(worker["status"] == "READY" for worker in model["workers"])

    def register(self, endpoint: str, folder: Path) -> None:
        """Add the version in ``folder`` of the model store, and wait for its workers."""
        question = {"url": folder.name, "model_name": endpoint, "synchronous": "true"}
        self._ask("POST", "/models", question, REGISTER_S)

    def set_default(self, endpoint: str, version: int) -> None:
        """Send the endpoint's requests to a version from now on."""
        self._ask("PUT", f"/models/{endpoint}/{version}/set-default")

    def unregister(self, endpoint: str, version: int) -> None:
        """Stop a version's workers, whatever they are doing."""
        self._ask("DELETE", f"/models/{endpoint}/{version}")

    def _ask(
        self,
        method: str,
        path: str,
        question: dict[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """The JSON of a 2xx answer."""
        try:
            reply = self._session.request(
                method, self._url + path, params=question, timeout=timeout_s
            )
            if reply.ok:
                return reply.json()
        except (requests.RequestException, ValueError) as error:
            raise LaunchError(
                f"no proper answer from TorchServe to {method} {path} ({type(error).__name__})"
            ) from error
        raise LaunchError(f"TorchServe answered {method} {path} with HTTP {reply.status_code}")
