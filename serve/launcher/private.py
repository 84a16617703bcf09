"""The launcher's private port: readiness, metadata, the map, metrics, and swaps.

Most of its paths are in the contract (serve/openapi.yaml), and the gateway passes them on. /metrics
and /swap are not in the contract, and /swap is for callers on this host alone.
"""

import ipaddress
import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serve.bundle.errors import ServeError
from serve.endpoints import ENDPOINTS
from serve.errors import LaunchError
from serve.wire.media import JSON

logger = logging.getLogger(__name__)

MAX_SWAP_BYTES = 65_536  # of the body of a request to swap, which holds a path
PATIENCE_S = 5.0  # for a caller to send the request it has begun
TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' format


@dataclass(frozen=True)
class Answers:
    """The functions that the private port calls for its replies.

    Attributes:
        reason: why the service isn't ready; None if it is.
        pages: path → body of every page that only describes what is served.
        metrics: the text of /metrics.
        swap: serves the bundle in a folder, or for None the previous bundle; returns the reply.
    """

    reason: Callable[[], str | None]
    pages: Callable[[], Mapping[str, dict[str, Any]]]
    metrics: Callable[[], bytes]
    swap: Callable[[str | None], dict[str, Any]]


class PrivateServer(ThreadingHTTPServer):
    """An HTTP server in threads of its own, which serves from its construction until ``stop``.

    Raises:
        LaunchError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128  # connections that wait to be accepted; Python's default is 5

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        self.answers = answers
        try:
            super().__init__((host, port), PrivateHandler)
        except OSError as error:
            raise LaunchError(f"can't listen on port {port}: {error.strerror}") from error
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: Any) -> None:
        """Log one line where http.server would print a traceback, as when a caller hangs up."""
        logger.warning("private port: %s: %s", client_address[0], sys.exc_info()[1])


class PrivateHandler(BaseHTTPRequestHandler):
    """One request to the private port."""

    server: PrivateServer
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """A page, readiness or the metrics."""
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
        """Swap, if asked from this host in JSON: a web page may not send JSON here unasked."""
        if self.path != "/swap":
            return self._send_error(404, "NotFound", "no such path")
        host = self.headers.get("Host", "").partition(":")[0]  # another name means DNS rebinding
        local = ipaddress.ip_address(self.client_address[0]).is_loopback
        if not local or host not in ("127.0.0.1", "localhost"):
            return self._send_error(403, "Forbidden", "only this host may ask for a swap")
        if self.headers.get("Content-Type") != JSON:
            return self._send_error(415, "UnsupportedMediaType", f"send {JSON}")
        try:
            folder = self._read_folder()
        except (ValueError, LookupError, TypeError, RecursionError):
            message = 'send {"bundle": "FOLDER"}, or null for the previous bundle'
            return self._send_error(400, "InvalidRequest", message)
        try:
            return self._send_json(200, self.server.answers.swap(folder))
        except ServeError as error:
            return self._send_error(409, type(error).__name__, str(error))

    def _read_folder(self) -> str | None:
        """The folder that a request to swap names. Raises ValueError, say, where it names none."""
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(max(0, min(length, MAX_SWAP_BYTES)))
        folder = json.loads(body)["bundle"]
        if not isinstance(folder, str | None):
            raise TypeError("a folder is a string")
        return folder

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
        """Log nothing: health checks come every few seconds."""
