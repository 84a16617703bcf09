"""``pinhole explore``'s server: one origin, for its own page alone."""

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from pinhole.address import PRIVATE_OFFSET, upstreams
from pinhole.cli import main
from pinhole.explorer.server import SECURITY, ExplorerServer

Explore = Callable[..., str]


class Echo(BaseHTTPRequestHandler):
    """A service that answers some GETs, and replies with what it was sent."""

    known: tuple[str, ...] = ()

    def do_GET(self) -> None:
        """Reply 200 for a known path, else 404."""
        self._answer(200 if self.path in self.known else 404, b"")

    def do_POST(self) -> None:
        """Reply 200 for every path."""
        self._answer(200, self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, status: int, body: bytes) -> None:
        seen = {
            "port": self.server.server_address[1],
            "key": self.headers.get("Authorization"),
            "cookie": self.headers.get("Cookie"),
            "asked": self.headers.get("X-Seen"),
            "body": body.decode(),
        }
        self.send_response(status)
        self.send_header("X-Model-Digest", "abc")
        self.end_headers()
        self.wfile.write(json.dumps(seen).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Run a server until the block ends."""
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@pytest.fixture
def launcher() -> Iterator[int]:
    """An inference port that knows no GETs, and its private port, which knows /ready."""
    for port in range(31_000, 32_000, 10):
        with ExitStack() as stack:
            try:
                for offset, known in ((0, ()), (PRIVATE_OFFSET, ("/ready",))):
                    handler = type("Port", (Echo,), {"known": known})
                    server = ThreadingHTTPServer(("127.0.0.1", port + offset), handler)
                    stack.enter_context(serving(server))
            except OSError:
                continue  # the port is taken: the next pair
            yield port
            return


@pytest.fixture
def explore() -> Iterator[Explore]:
    """Starts the explorer for a service; returns the explorer's URL."""
    with ExitStack() as stack:

        def start(port: int, api_key: str = "") -> str:
            server = ExplorerServer(f"http://127.0.0.1:{port}", api_key, timeout_s=5)
            stack.enter_context(serving(server))
            return server.url

        yield start


def test_serves_the_page_under_a_strict_policy(launcher: int, explore: Explore) -> None:
    """Every file that the page names is there; nothing comes without the security headers."""
    url = explore(launcher)
    page = requests.get(url, timeout=5)
    named = re.findall(r'(?:src|href)="([^"#]+)"', page.text)

    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert {"main.js", "style.css", "icon.svg"} <= set(named)
    for name in named:
        reply = requests.get(url + name, timeout=5)
        assert reply.status_code == 200
        assert SECURITY.items() <= reply.headers.items()
    assert SECURITY.items() <= requests.get(f"{url}nothing", timeout=5).headers.items()
    assert "unsafe" not in SECURITY["Content-Security-Policy"]


def test_gets_that_the_service_does_not_know_go_to_the_private_port(
    launcher: int, explore: Explore
) -> None:
    """A bare launcher is explored as a gateway is."""
    url = explore(launcher)

    ready = requests.get(f"{url}ready", timeout=5)
    asked = {"X-Seen": "true"}
    posted = requests.post(f"{url}predictions/reconstruct", b"a file", headers=asked, timeout=5)
    unknown = requests.get(f"{url}v2/models/other", timeout=5)

    assert ready.json()["port"] == launcher + PRIVATE_OFFSET
    said = {"key": None, "cookie": None, "asked": "true", "body": "a file"}
    assert posted.json() == {"port": launcher, **said}
    assert posted.headers["X-Model-Digest"] == "abc"
    assert unknown.status_code == 404


def test_other_hosts_have_no_private_port() -> None:
    """Only on this host is there a launcher beside the service."""
    assert upstreams("https://images.example.com/api/") == ["https://images.example.com/api"]
    assert upstreams("http://localhost:8080") == ["http://localhost:8080", "http://localhost:8083"]


def test_sends_the_users_key(launcher: int, explore: Explore) -> None:
    """The page's own key has precedence; cookies aren't passed on."""
    url = f"{explore(launcher, 'mine')}predictions/embed"

    ours = requests.post(url, b"", headers={"Cookie": "a=b"}, timeout=5)
    theirs = requests.post(url, b"", headers={"Authorization": "Bearer theirs"}, timeout=5)

    assert (ours.json()["key"], ours.json()["cookie"]) == ("Bearer mine", None)
    assert theirs.json()["key"] == "Bearer theirs"


def test_sends_the_urls_credentials(launcher: int) -> None:
    """As the client does; the page and the messages have the address without them."""
    server = ExplorerServer(f"http://me:s%40cret@127.0.0.1:{launcher}", "", timeout_s=5)
    with serving(server):
        reply = requests.post(f"{server.url}predictions/embed", b"", timeout=5)

    assert reply.json()["key"] == "Basic bWU6c0BjcmV0"  # me:s@cret
    assert server.upstreams[0] == f"http://127.0.0.1:{launcher}"


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Host": "127.0.0.1"}, {"Origin": "https://evil.example"}]
)
def test_strangers_are_refused(launcher: int, explore: Explore, headers: dict[str, str]) -> None:
    """A foreign Host (DNS rebinding) or another site's Origin gets neither page nor service."""
    url = explore(launcher, "mine")

    refusals: list[requests.Response] = [
        requests.get(url, headers=headers, timeout=5),
        requests.get(f"{url}ready", headers=headers, timeout=5),
        requests.post(f"{url}predictions/embed", b"", headers=headers, timeout=5),
    ]

    assert [reply.status_code for reply in refusals] == [403] * 3


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/swap"),
        ("POST", "/predictions/../swap"),
        ("GET", "/metrics"),
        ("GET", "/v2/../metrics"),
        ("GET", "/v2/%2e%2E/metrics"),
    ],
)
def test_other_paths_are_not_passed_on(
    launcher: int, explore: Explore, method: str, path: str
) -> None:
    """The private port's other paths stay private."""
    url = urlsplit(explore(launcher))
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=5)
    connection.request(method, path, b"")  # requests would take dots out of the path
    reply = connection.getresponse()

    assert (reply.status, json.loads(reply.read())["type"]) == (404, "NotFound")
    connection.close()


def test_huge_bodies_are_refused_unread(launcher: int, explore: Explore) -> None:
    """They are refused before memory is spent on them."""
    headers: dict[str, Any] = {"Content-Length": str(2**30)}

    reply = requests.post(f"{explore(launcher)}predictions/embed", b"", headers=headers, timeout=5)

    assert (reply.status_code, reply.json()["type"]) == (413, "PayloadTooLarge")


def test_a_service_that_is_away_is_unavailable(explore: Explore) -> None:
    """503 with Retry-After, in the contract's form."""
    reply = requests.get(f"{explore(9)}ready", timeout=5)

    assert reply.status_code == 503
    assert reply.headers["Retry-After"] == "1"
    assert reply.json()["type"] == "Unavailable"
    assert "python -m serve BUNDLE starts it" in reply.json()["message"]


def test_a_taken_port_is_wrong_usage(launcher: int, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the port."""
    assert main(["explore", "--port", str(launcher), "--no-open"]) == 2

    assert f"can't listen on port {launcher}" in capsys.readouterr().err


def test_ctrl_c_stops_it_cleanly(launcher: int) -> None:
    """The URL on stdout, nothing but words on stderr, exit 0."""
    command = [sys.executable, "-m", "pinhole", "explore", "--no-open", "--port", "0"]
    service = ["--url", f"http://127.0.0.1:{launcher}"]
    with subprocess.Popen(
        [*command, *service], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert requests.get(url, timeout=5).status_code == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)

    assert process.returncode == 0
    assert said.splitlines()[-1] == "stopped"
    assert "Traceback" not in said
