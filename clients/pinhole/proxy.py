"""The explorer's page and the service behind it, as one origin on this host.

The page may call only where it came from, so its own server passes the contract's paths on. It
listens on loopback, for this user's browser alone: whatever comes under a foreign name (DNS
rebinding) or from another site's page is refused, because the server adds the user's API key.
"""

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import urllib3

PAGE = Path(__file__).parent / "explorer"
D3 = ("tuna", "tuna/web/static/d3.min.js")  # the package that carries D3 7, and where
HOST = "127.0.0.1"
PRIVATE_OFFSET = 3  # the launcher's private port, after the inference port (docs/operations.md)
MAX_BODY_BYTES = 2**25  # twice the service's own limit: the refusal is its to word
PATHS = ("/predictions/", "/v2/")
GETS = ("/v2", "/ready", "/map.json", "/openapi.yaml")
PASSED_ON = ("Content-Type", "Accept", "Authorization", "Inference-Header-Content-Length")
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}  # not the system's: browsers run nothing of another type
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")
PATIENCE_S = 60.0  # for a browser to send the request it has begun
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


class NoLibrary(Exception):
    """D3 isn't installed."""


def page_files() -> dict[str, Path]:
    """Path → file of everything that the page consists of.

    Raises:
        NoLibrary: the package that carries D3 isn't installed.
    """
    files = {f"/{path.name}": path for path in PAGE.iterdir() if path.suffix in TYPES}
    return {**files, "/": PAGE / "index.html", "/d3.js": d3_file()}


def d3_file() -> Path:
    """D3, out of the package that carries it; the package itself is never imported.

    Raises:
        NoLibrary: it isn't installed.
    """
    package, inside = D3
    try:
        return Path(str(metadata.distribution(package).locate_file(inside)))
    except metadata.PackageNotFoundError as error:
        raise NoLibrary("D3 is missing: pip install 'pinhole[explore]'") from error


class Proxy(ThreadingHTTPServer):
    """Serves the page, and passes the API's paths on to a service.

    Args:
        url: of the service: a gateway, or a launcher on this host.
        api_key: sent to the service where the page sends none itself.
        timeout_s: longest wait for the service.
        port: to listen on, on loopback; 0 takes a free one.

    Raises:
        NoLibrary: D3 isn't installed.
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, url: str, api_key: str, timeout_s: float, port: int = 0) -> None:
        self.files = page_files()
        self.api_key = api_key
        self.upstreams = upstreams(url)
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
        """The names this server answers to."""
        return tuple(f"{name}:{self.server_port}" for name in (HOST, "localhost"))

    def server_close(self) -> None:
        """Stop listening, and hang up on the service."""
        super().server_close()
        self.pool.clear()

    def handle_error(self, request: object, client_address: Any) -> None:
        """Say nothing: browsers hang up whenever a tab is closed."""


def upstreams(url: str) -> list[str]:
    """Where to ask, in order: the service, and on this host the launcher's private port."""
    parts = urlsplit(url.rstrip("/"))
    if parts.hostname not in (HOST, "localhost", "::1"):
        return [url.rstrip("/")]
    port = (parts.port or 80) + PRIVATE_OFFSET
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return [url.rstrip("/"), urlunsplit(("http", f"{host}:{port}", parts.path, "", ""))]


class Handler(BaseHTTPRequestHandler):
    """One request of the page."""

    server: Proxy
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """A file of the page, or what the service says."""
        path = self.path.partition("?")[0]
        if self._is_foreign():
            self._refuse(HTTPStatus.FORBIDDEN, "Forbidden", "this server is for its own page")
        elif path in self.server.files:
            self._send_file(self.server.files[path])
        elif path in GETS or path.startswith(PATHS):
            self._pass_on(None)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "NotFound", "no such path")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """A prediction."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True  # the body is left unread
            message = f"send a Content-Length, of at most {MAX_BODY_BYTES:,} bytes"
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "PayloadTooLarge", message)
        body = self.rfile.read(int(length))
        if self._is_foreign():
            return self._refuse(
                HTTPStatus.FORBIDDEN, "Forbidden", "this server is for its own page"
            )
        if not self.path.startswith(PATHS):
            return self._refuse(HTTPStatus.NOT_FOUND, "NotFound", "no such path")
        return self._pass_on(body)

    def _is_foreign(self) -> bool:
        """Whether another name was asked for, or another site's page asks."""
        origin = self.headers.get("Origin")
        known = self.headers.get("Host") in self.server.hosts
        return not known or origin not in (None, *(f"http://{host}" for host in self.server.hosts))

    def _pass_on(self, body: bytes | None) -> None:
        """Ask the service; a GET that it doesn't know, or can't answer, its private port."""
        candidates = self.server.upstreams if body is None else self.server.upstreams[:1]
        for last, upstream in enumerate(candidates, 1 - len(candidates)):
            try:
                reply = self._ask(upstream, body)
            except urllib3.exceptions.HTTPError:
                continue
            if last == 0 or reply.status not in (404, 405):
                return self._send(reply.status, reply.data, dict(reply.headers))
        return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Unavailable", "no answer")

    def _ask(self, upstream: str, body: bytes | None) -> urllib3.BaseHTTPResponse:
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        if self.server.api_key:
            headers.setdefault("Authorization", f"Bearer {self.server.api_key}")
        return self.server.pool.request(
            self.command, upstream + self.path, body=body, headers=headers, redirect=False
        )

    def _send_file(self, file: Path) -> None:
        kind = f"{TYPES[file.suffix]}; charset=utf-8"
        self._send(HTTPStatus.OK, file.read_bytes(), {"Content-Type": kind})

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
        """Say nothing: a hand on the map makes sixty requests a second."""
