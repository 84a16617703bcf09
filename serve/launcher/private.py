"""The launcher's private port: readiness, metadata, the map, metrics, and swaps.

Most of its paths are in the contract (serve/openapi.yaml), and the gateway passes them on. /metrics
and /swap are not in the contract, and /swap is for callers on this host alone.
"""

import ipaddress
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serve.bundle.errors import ServeError
from serve.endpoints import ENDPOINTS
from serve.errors import LaunchError
from serve.wire.media import JSON
from serve.wire.replies import Reply, refusal

logger = logging.getLogger(__name__)

MAX_SWAP_BYTES = 65_536  # of the body of a request to swap, which holds a path
PATIENCE_S = 5.0  # for a caller to send the request it has begun
HINT = "no such path; this is the private port, with /ready, /metrics, /v2 and /map.json"
TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' format


@dataclass(frozen=True)
class Pages:
    """The contract's pages.

    Attributes:
        reason: why the service isn't ready; None if it is.
        pages: path → JSON of every page that only describes what is served.
    """

    reason: Callable[[], str | None]
    pages: Callable[[], Mapping[str, bytes]]

    def page(self, path: str) -> Reply | None:
        """The contract's page at a path: liveness, readiness, metadata or the map."""
        if path == "/v2/health/live":
            return json_page({"live": True})
        if path in ("/ready", "/v2/health/ready"):
            reason = self.reason()
            return ready_page({"ready": reason is None, "reason": reason})
        if path in READY_PAGES:
            return ready_page({"name": READY_PAGES[path], "ready": self.reason() is None})
        body = self.pages().get(path)
        return None if body is None else Reply(body)


@dataclass(frozen=True)
class Answers(Pages):
    """The functions that the private port calls for its replies.

    Attributes:
        metrics: the text of /metrics.
        swap: serves the bundle in a folder, or for None the previous bundle; returns the reply.
    """

    metrics: Callable[[], bytes]
    swap: Callable[[str | None], dict[str, Any]]


READY_PAGES = {f"/v2/models/{endpoint}/ready": endpoint for endpoint in ENDPOINTS}


def json_page(fields: Mapping[str, Any]) -> Reply:
    """A page of JSON."""
    return Reply(json.dumps(fields, separators=(",", ":")).encode())


def ready_page(fields: Mapping[str, Any]) -> Reply:
    """A page of readiness: a 503, to be asked again after a second, where it isn't ready."""
    page = json_page(fields)
    if fields["ready"]:
        return page
    return replace(page, status=503, headers={"Retry-After": "1"})


class PrivateServer(ThreadingHTTPServer):
    """An HTTP server in threads of its own, which serves from its construction until ``stop``.

    Raises:
        LaunchError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128  # connections that wait to be accepted; Python's default is 5

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        self.answers = answers
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
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
            self._send(Reply(answers.metrics(), content_type=TEXT))
        else:
            self._send(answers.page(path) or refusal(404, "NotFound", HINT))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Swap, if asked from this host in JSON: a web page may not send JSON here unasked."""
        if self.path != "/swap":
            return self._refuse(404, "NotFound", "no such path")
        host = self.headers.get("Host", "").partition(":")[0]  # another name means DNS rebinding
        # On "::", a caller over IPv4 has an address such as ::ffff:127.0.0.1.
        caller = self.client_address[0].removeprefix("::ffff:")
        local = ipaddress.ip_address(caller).is_loopback
        if not local or host not in ("127.0.0.1", "localhost"):
            return self._refuse(403, "Forbidden", "only this host may ask for a swap")
        if self.headers.get("Content-Type") != JSON:
            return self._refuse(415, "UnsupportedMediaType", f"send {JSON}")
        try:
            folder = self._read_folder()
        except (ValueError, LookupError, TypeError, RecursionError):
            message = 'send {"bundle": "FOLDER"}, or null for the previous bundle'
            return self._refuse(400, "InvalidRequest", message)
        try:
            return self._send(json_page(self.server.answers.swap(folder)))
        except ServeError as error:
            return self._refuse(409, type(error).__name__, str(error))

    def _read_folder(self) -> str | None:
        """The folder that a request to swap names. Raises ValueError, say, where it names none."""
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(max(0, min(length, MAX_SWAP_BYTES)))
        folder = json.loads(body)["bundle"]
        if not isinstance(folder, str | None):
            raise TypeError("a folder is a string")
        return folder

    def _refuse(self, code: int, kind: str, message: str) -> None:
        self._send(refusal(code, kind, message))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: health checks come every few seconds."""
