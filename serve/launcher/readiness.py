"""Readiness that is true: workers that are up, and answers that are right.

TorchServe's own /ping stays healthy while every worker is dead. Here ready means that the
management API calls every worker READY (each has passed the golden check as it started) and that
one canary request for each endpoint has just come back with the golden answer.

``python -m serve.launcher.readiness`` asks a running service, for health checks.
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import requests
from numpy.typing import NDArray

from serve.bundle import ENDPOINTS, Bundle
from serve.errors import LaunchError, RequestError
from serve.images import PixelBudget, read_image, write_png
from serve.launcher.management import Management, loopback_session
from serve.launcher.torchserve import Settings
from serve.wire.requests import CANARY_HEADER, JSON, PNG

TIMEOUT_S = 5.0  # of each request of a check


@dataclass(frozen=True)
class Canary:
    """A request whose answer is known.

    Attributes:
        body: what to POST.
        headers: to send with it.
        is_golden: whether a 200 reply holds the golden answer.
    """

    body: bytes
    headers: dict[str, str]
    is_golden: Callable[[requests.Response], bool]


class Readiness:
    """The state of one TorchServe.

    ``check`` finds it out, and two attributes remember it.

    Attributes:
        reason: None when ready, else why not.
        working: every endpoint has a worker that may yet answer; a service that is merely busy
            is not ready, but it works.
        been_ready: at some time.
        canaries: the requests with known answers, by endpoint.
        changing: held while the default version, and with it the right answer, changes.
    """

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.reason: str | None = "starting"
        self.working = self.been_ready = False
        self.changing = threading.Lock()
        self._settings = settings
        self._management = Management(settings.management_url)
        self._session = loopback_session()
        self.canaries = make_canaries(bundle, settings)

    def check(self) -> bool:
        """Ask TorchServe; True if it is ready."""
        with self.changing:
            self.working = False
            try:
                self.reason = self._worker_fault() or self._canary_fault()
            except LaunchError as error:
                self.reason = str(error)
        self.been_ready |= self.reason is None
        return self.reason is None

    def _worker_fault(self) -> str | None:
        wanted = self._settings.workers
        ready = {endpoint: self._management.ready_workers(endpoint) for endpoint in ENDPOINTS}
        self.working = all(ready.values())
        for endpoint, count in ready.items():
            if count < wanted:
                return f"{endpoint}: {count} of {wanted} workers ready"
        return None

    def _canary_fault(self) -> str | None:
        for endpoint, canary in self.canaries.items():
            url = f"{self._settings.inference_url}/predictions/{endpoint}"
            fault, wrong = ask(self._session, url, canary)
            if wrong:
                self.working = False
            if fault:
                return f"{endpoint}: {fault}"
        return None


def send(
    session: requests.Session, url: str, canary: Canary, timeout_s: float
) -> requests.Response:
    """POST a canary. Raises requests.RequestException where no answer comes in time."""
    return session.post(url, canary.body, headers=canary.headers, timeout=timeout_s)


def ask(session: requests.Session, url: str, canary: Canary) -> tuple[str | None, bool]:
    """Send a canary: what is wrong with the answer (None if nothing), and whether it is untrue."""
    try:
        reply = send(session, url, canary, TIMEOUT_S)
        if reply.status_code != 200:
            return f"the canary got HTTP {reply.status_code}", False
        if canary.is_golden(reply):
            return None, False
    except requests.RequestException as error:
        return f"the canary got no answer ({type(error).__name__})", False
    except (RequestError, ValueError, LookupError, TypeError):
        return "the canary's answer can't be read", True
    return "the canary's answer is wrong", True


def make_canaries(bundle: Bundle, settings: Settings) -> dict[str, Canary]:
    """One request for each endpoint, made of the first golden image."""
    golden, tolerance = bundle.golden(), bundle.manifest.tolerances[settings.precision]
    image, embedding = golden.images[0], golden.embeddings[0]
    vector = json.dumps({"embeddings": [embedding.tolist()]}).encode()
    levels = np.rint(golden.reconstructions * 255)
    reconstruction = levels[0]
    others = (float(np.abs(other - reconstruction).mean()) for other in levels[1:])
    nearest = min(others, default=0.0)  # a model of very few images has one golden one

    def is_embedding(reply: requests.Response) -> bool:
        gap = np.abs(np.array(reply.json()["embedding"]) - embedding)
        return bool(gap.max() <= tolerance.embedding)

    def gaps(reply: requests.Response) -> NDArray[np.float64]:
        pixels = read_image(reply.content, bundle.manifest.image, PixelBudget())
        found: NDArray[np.float64] = np.abs(pixels.astype(np.float64) - reconstruction)
        return found

    def is_decoded(reply: requests.Response) -> bool:
        return bool(gaps(reply).max() <= 1 + 255 * tolerance.pixel)  # 1: rounded either way

    def is_reconstruction(reply: requests.Response) -> bool:
        # A coarse precision moves the embedding, and the edges of the picture with it: on average
        # by less than a grey level, and by less than half the way to another golden picture.
        return bool(gaps(reply).mean() <= max(1.0, nearest / 2))

    def headers(content_type: str, accept: str) -> dict[str, str]:
        told = {"Content-Type": content_type, "Accept": accept}
        return {**told, CANARY_HEADER: settings.canary_token}

    return {
        "embed": Canary(write_png(image), headers(PNG, JSON), is_embedding),
        "reconstruct": Canary(write_png(image), headers(PNG, PNG), is_reconstruction),
        "decode": Canary(vector, headers(JSON, PNG), is_decoded),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 if the service is ready."""
    parser = argparse.ArgumentParser(
        prog="python -m serve.launcher.readiness",
        description="Ask a service on this host whether it is ready; exit 1 and say why if not.",
    )
    add_port(parser)
    port = parser.parse_args(sys.argv[1:] if arguments is None else arguments).port
    url = f"http://127.0.0.1:{Settings(port=port).private_port}/ready"
    try:
        reason = loopback_session().get(url, timeout=TIMEOUT_S).json()["reason"]
    except (requests.RequestException, ValueError, LookupError, TypeError):
        reason = f"no proper answer from {url}"
    print("ready" if reason is None else f"not ready: {reason}")
    return 0 if reason is None else 1


def add_port(parser: argparse.ArgumentParser) -> None:
    """Let ``parser`` take the port of a running service; its variable is the service's own."""
    set_port = os.environ.get("PINHOLE_PORT", "")
    default = int(set_port) if set_port.isdecimal() else Settings.port
    parser.add_argument(
        "--port", type=int, default=default, help="of the service (default: %(default)s)"
    )


if __name__ == "__main__":
    sys.exit(main())
