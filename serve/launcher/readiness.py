"""Readiness that is true: workers that are up, and answers that are right.

TorchServe's own /ping stays healthy while every worker is dead. Here ready means that the
management API calls every worker READY (each has passed the golden check as it started) and that
one canary request for each endpoint has just come back with the golden answer.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray

from serve.bundle import ENDPOINTS, Bundle
from serve.errors import LaunchError, RequestError
from serve.images import PixelBudget, read_image, write_png
from serve.launcher.torchserve import Settings
from serve.wire.requests import JSON, PNG

TIMEOUT_S = 5.0  # of each request of a check


@dataclass(frozen=True)
class Canary:
    """A request whose answer is known.

    Attributes:
        body: what to POST.
        content_type: of the body.
        accept: the form to ask the answer in.
        is_golden: whether a 200 reply holds the golden answer.
    """

    body: bytes
    content_type: str
    accept: str
    is_golden: Callable[[requests.Response], bool]


class Readiness:
    """The state of one TorchServe.

    ``check`` finds it out, and two attributes remember it.

    Attributes:
        reason: None when ready, else why not.
        working: every endpoint has a worker that may yet answer; a service that is merely busy
            is not ready, but it works.
    """

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.reason: str | None = "starting"
        self.working = False
        self._settings = settings
        self._canaries = make_canaries(bundle, settings.precision)
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy stands between us and loopback

    def check(self) -> bool:
        """Ask TorchServe; True if it is ready."""
        self.working = False
        try:
            self.reason = self._worker_fault() or self._canary_fault()
        except (requests.RequestException, ValueError, LookupError, TypeError) as error:
            self.reason = f"no proper answer from TorchServe ({type(error).__name__})"
        except RequestError as error:
            self.reason = f"a canary's picture can't be read: {error}"
        return self.reason is None

    def _worker_fault(self) -> str | None:
        wanted, ready = self._settings.workers, {}
        for endpoint in ENDPOINTS:
            url = f"{self._settings.management_url}/models/{endpoint}"
            workers = self._session.get(url, timeout=TIMEOUT_S).json()[0]["workers"]
            ready[endpoint] = sum(worker["status"] == "READY" for worker in workers)
        self.working = all(ready.values())
        for endpoint, count in ready.items():
            if count < wanted:
                return f"{endpoint}: {count} of {wanted} workers ready"
        return None

    def _canary_fault(self) -> str | None:
        for endpoint, canary in self._canaries.items():
            reply = self._session.post(
                f"{self._settings.inference_url}/predictions/{endpoint}",
                canary.body,
                headers={"Content-Type": canary.content_type, "Accept": canary.accept},
                timeout=TIMEOUT_S,
            )
            if reply.status_code != 200:
                return f"{endpoint}: the canary got HTTP {reply.status_code}"
            if not canary.is_golden(reply):
                self.working = False
                return f"{endpoint}: the canary's answer is wrong"
        return None


def make_canaries(bundle: Bundle, precision: str) -> dict[str, Canary]:
    """One request for each endpoint, made of the first golden image."""
    golden, tolerance = bundle.golden(), bundle.manifest.tolerances[precision]
    image, embedding = golden.images[0], golden.embeddings[0]
    vector = json.dumps({"embeddings": [embedding.tolist()]}).encode()
    levels = np.rint(golden.reconstructions * 255)
    reconstruction = levels[0]
    nearest = min(float(np.abs(other - reconstruction).mean()) for other in levels[1:])

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

    return {
        "embed": Canary(write_png(image), PNG, JSON, is_embedding),
        "reconstruct": Canary(write_png(image), PNG, PNG, is_reconstruction),
        "decode": Canary(vector, JSON, PNG, is_decoded),
    }


def serve_readiness(readiness: Readiness, bundle: Bundle, port: int) -> ThreadingHTTPServer:
    """Answer ``GET /ready`` (200 or 503) and ``GET /metadata`` on loopback, in a thread.

    Raises:
        LaunchError: the port is taken.
    """
    manifest = bundle.manifest
    metadata = {
        "name": manifest.name,
        "version": manifest.version,
        "digest": manifest.digest,
        "image": asdict(manifest.image),
        "embedding_width": manifest.embedding_width,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reason = readiness.reason
            if self.path == "/ready":
                self._send(
                    200 if reason is None else 503, {"ready": reason is None, "reason": reason}
                )
            elif self.path == "/metadata":
                self._send(200, metadata)
            else:
                self._send(404, {"code": 404, "type": "NotFound", "message": "no such path"})

        def _send(self, status: int, fields: dict[str, Any]) -> None:
            body = json.dumps(fields).encode()
            self.send_response(status)
            self.send_header("Content-Type", JSON)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: probes come every few seconds."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise LaunchError(f"port {port} (readiness) is taken: {error.strerror}") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
