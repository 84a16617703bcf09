"""The launcher's private port: readiness, metadata, the map, metrics, and the door for swaps.

Its paths are the contract's (serve/openapi.yaml), for the gateway to pass on; /metrics and /swap
are not, and /swap is for callers on this host alone.
"""

import ipaddress
import json
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serve.bundle import ENDPOINTS
from serve.errors import LaunchError, ServeError

logger = logging.getLogger(__name__)

MAX_SWAP_BYTES = 65_536  # of a request to swap: a path
PATIENCE_S = 5.0  # for a caller to send the request it has begun
TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' format
JSON = "application/json"


@dataclass(frozen=True)
class Answers:
    """Where the answers come from.

    Attributes:
        reason: why the service isn't ready; None if it is.
        pages: path → body of what is merely told.
        metrics: the text of /metrics.
        swap: serve the bundle in this folder, or for None the former one; tells which.
    """

    reason: Callable[[], str | None]
    pages: Callable[[], dict[str, dict[str, Any]]]
    metrics: Callable[[], bytes]
    swap: Callable[[str | None], dict[str, Any]]


class PrivateServer(ThreadingHTTPServer):
    """An HTTP server in threads of its own, from its making until ``stop``.

    Raises:
        LaunchError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128  # or a few askers at once would wait for one another to connect

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        self.answers = answers
        try:
            super().__init__((host, port), PrivateHandler)
        except OSError as error:
            raise LaunchError(f"can't listen on port {port}: {error.strerror}") from error
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Answer nobody any more."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: Any) -> None:
        """Say in one line what http.server would print a traceback for: callers hang up."""
        logger.warning("private port: %s: %s", client_address[0], sys.exc_info()[1])


class PrivateHandler(BaseHTTPRequestHandler):
    """One request."""

    server: PrivateServer
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """Tell."""
        answers, path = self.server.answers, self.path.partition("?")[0]
        if path == "/metrics":
            self._send(200, answers.metrics(), TEXT)
        elif path == "/v2/health/live":
            self._send_json(200, {"live": True})
        elif path in ("/ready", "/v2/health/ready"):
            reason = answers.reason()
            fields = {"ready": reason is None, "reason": reason}
            self._send_json(200 if reason is None else 503, fields)
        elif path in [f"/v2/models/{endpoint}/ready" for endpoint in ENDPOINTS]:
            ready = answers.reason() is None
            self._send_json(200 if ready else 503, {"name": path.split("/")[3], "ready": ready})
        elif path in (pages := answers.pages()):
            self._send_json(200, pages[path])
        else:
            self._send_error(404, "NotFound", "no such path")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Swap, if asked from this host, as JSON: a web page can't send that unasked."""
        if self.path != "/swap":
            return self._send_error(404, "NotFound", "no such path")
        host = self.headers.get("Host", "").partition(":")[0]  # a rebound name gives itself away
        local = ipaddress.ip_address(self.client_address[0]).is_loopback
        if not local or host not in ("127.0.0.1", "localhost"):
            return self._send_error(403, "Forbidden", "swaps are asked for on this host")
        if self.headers.get("Content-Type") != JSON:
            return self._send_error(415, "UnsupportedMediaType", f"send {JSON}")
        try:
            length = int(self.headers.get("Content-Length", "0"))
            folder = json.loads(self.rfile.read(max(0, min(length, MAX_SWAP_BYTES))))["bundle"]
            if not isinstance(folder, str | None):
                raise TypeError
        except (ValueError, LookupError, TypeError, RecursionError):
            message = 'send {"bundle": "FOLDER"}, or null for the former one'
            return self._send_error(400, "InvalidRequest", message)
        try:
            return self._send_json(200, self.server.answers.swap(folder))
        except ServeError as error:
            return self._send_error(409, type(error).__name__, str(error))

    def _send_error(self, code: int, kind: str, message: str) -> None:
        self._send_json(code, {"code": code, "type": kind, "message": message})

    def _send_json(self, status: int, fields: dict[str, Any]) -> None:
        self._send(status, json.dumps(fields, separators=(",", ":")).encode(), JSON)

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: probes come every few seconds."""
