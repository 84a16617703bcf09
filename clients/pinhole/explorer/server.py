"""The explorer's server: serves the page, and passes the service's API on, as one origin.

The page may only call the origin that it came from, so the page's own server passes the API's paths
on to the service. It listens on loopback, for this user's browser alone. Because it adds the user's
API key, it refuses requests under a foreign host name (DNS rebinding) and requests that come from
another site's page.
"""

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import urllib3

from pinhole.address import authorization, upstreams, without_credentials
from pinhole.explorer.assets import MEDIA_TYPES, page_files
from pinhole.transport import HOW_TO_START

HOST = "127.0.0.1"

# Twice the service's own limit, so that the service words the refusal of an oversized body.
MAX_BODY_BYTES = 2**25

PREFIXES = ("/predictions/", "/v2/")  # Paths of the API that are passed on.
PAGES = ("/v2", "/ready", "/map.json")  # Single paths that a GET may ask for.
PASSED_ON = (
    "Content-Type",
    "Accept",
    "Authorization",
    "Inference-Header-Content-Length",
    "X-Seen",
)
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")

# The longest wait for a browser to finish a request that it has begun.
READ_TIMEOUT_S = 60.0

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class ExplorerServer(ThreadingHTTPServer):
    """Serves the page, and passes the API's paths on to a service.

    Args:
        url: the service's: a gateway's, or that of a launcher on this host.
        api_key: sent to the service in requests for which the page sends no key itself; without a
            key, the URL's user and password are sent.
        timeout_s: longest wait for the service.
        port: to listen on, on loopback; 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, url: str, api_key: str, timeout_s: float, port: int = 0) -> None:
        self.files = page_files()
        self.authorization = authorization(url, api_key)
        self.upstreams = upstreams(without_credentials(url))
        self.pool = urllib3.PoolManager(
            maxsize=16, retries=False, timeout=urllib3.Timeout(timeout_s)
        )
        super().__init__((HOST, port), Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The values of the Host header that this server answers to."""
        return tuple(f"{name}:{self.server_port}" for name in (HOST, "localhost"))

    def server_close(self) -> None:
        """Stop listening, and close the connections to the service."""
        super().server_close()
        self.pool.clear()

    def handle_error(self, request: object, client_address: Any) -> None:
        """Print nothing: a browser drops its connections whenever a tab is closed."""


def is_of_api(path: str) -> bool:
    """Whether a path is passed on; the request to the service would resolve ``..`` in it."""
    return path.startswith(PREFIXES) and ".." not in unquote(path)


class Handler(BaseHTTPRequestHandler):
    """One connection of the browser."""

    server: ExplorerServer
    protocol_version = "HTTP/1.1"
    timeout = READ_TIMEOUT_S
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Send a file of the page, or the service's reply."""
        path = self.path.partition("?")[0]
        if self._is_foreign():
            self._refuse_foreign()
        elif path in self.server.files:
            self._send_file(self.server.files[path])
        elif path in PAGES or is_of_api(path):
            self._pass_on_get()
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "NotFound", "no such path")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Send the service's reply to a prediction request."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True  # The body is left unread.
            message = f"send a Content-Length, of at most {MAX_BODY_BYTES:,} bytes"
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "PayloadTooLarge", message)
        body = self.rfile.read(int(length))
        if self._is_foreign():
            return self._refuse_foreign()
        if not is_of_api(self.path):
            return self._refuse(HTTPStatus.NOT_FOUND, "NotFound", "no such path")
        # The private port takes no predictions.
        return self._send_reply(self._ask(self.server.upstreams[0], body))

    def _is_foreign(self) -> bool:
        """Whether the request names another host, or comes from another site's page."""
        origin = self.headers.get("Origin")
        known = self.headers.get("Host") in self.server.hosts
        return not known or origin not in (None, *(f"http://{host}" for host in self.server.hosts))

    def _refuse_foreign(self) -> None:
        self._refuse(HTTPStatus.FORBIDDEN, "Forbidden", "this server is for its own page")

    def _pass_on_get(self) -> None:
        """Send the reply of the first upstream that knows the path, or else of the last one."""
        reply = None
        for upstream in self.server.upstreams:
            reply = self._ask(upstream)
            if reply is not None and reply.status not in (404, 405):
                break
        self._send_reply(reply)

    def _ask(self, upstream: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse | None:
        """The reply of one upstream; None if it can't be reached."""
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        if self.server.authorization:
            headers.setdefault("Authorization", self.server.authorization)
        try:
            return self.server.pool.request(
                self.command, upstream + self.path, body=body, headers=headers, redirect=False
            )
        except urllib3.exceptions.HTTPError:
            return None

    def _send_reply(self, reply: urllib3.BaseHTTPResponse | None) -> None:
        if reply is None:
            message = f"no answer from {self.server.upstreams[0]}; {HOW_TO_START}"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Unavailable", message)
        else:
            self._send(reply.status, reply.data, dict(reply.headers))

    def _send_file(self, file: Path) -> None:
        media_type = f"{MEDIA_TYPES[file.suffix]}; charset=utf-8"
        self._send(HTTPStatus.OK, file.read_bytes(), {"Content-Type": media_type})

    def _refuse(self, status: HTTPStatus, kind: str, message: str) -> None:
        body = json.dumps({"code": status, "type": kind, "message": message}).encode()
        headers = {"Content-Type": "application/json"}
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = "1"
        self._send(status, body, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, **SECURITY}.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: a hand on the map makes sixty requests a second."""
