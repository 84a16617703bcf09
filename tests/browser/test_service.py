"""A service with outages, a service that wants a key, and calls of other hosts."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Route, expect

from serve.bundle.manifest import Bundle

from ..e2e.conftest import Running, free_port, running
from .conftest import Visit, Watch, exploring
from .gestures import SEVEN_PNG, hover

KEY = "open-sesame"


def test_stopped_and_started_again(
    shipped_bundle: Bundle, visit: Visit, watch: Watch, tmp_path: Path
) -> None:
    """The page says that the service is down, and goes on by itself once it is back."""
    watch.allowed = ["503"]
    with running(shipped_bundle, tmp_path) as service, exploring(service.url) as url:
        page = visit(url)
        hover(page, 0.3, 0.4)
        expect(page.locator("#status")).to_have_text("live")
        service.stop()
        hover(page, 0.6, 0.4)
        expect(page.locator("#status")).to_contain_text("The service is down")
        before = page.locator("#lens output").inner_text()

        page.set_input_files("#files input", SEVEN_PNG)

        with running(shipped_bundle, tmp_path, port=service.port):
            expect(page.locator("#status")).to_have_text("live")
            expect(page.locator("#lens output")).not_to_have_text(before)
            expect(page.locator("#files li")).to_contain_text("among 7s")


def test_opened_before_the_service(
    shipped_bundle: Bundle, visit: Visit, watch: Watch, tmp_path: Path
) -> None:
    """Without a service the page waits, and builds itself when the service comes up."""
    watch.allowed = ["503"]
    port = free_port()
    with exploring(f"http://127.0.0.1:{port}") as url:
        page = visit(url, wait=False)
        expect(page.locator("#status")).to_contain_text("The service is down")

        with running(shipped_bundle, tmp_path, port=port):
            expect(page.locator("#lens output")).not_to_be_empty()
            expect(page.locator("#lead")).to_contain_text("10,000 dots")


class Guard(BaseHTTPRequestHandler):
    """A gateway in front of a service: 401 without the key, and nothing more."""

    upstream: str
    private: str

    def do_GET(self) -> None:
        """Ask the private port."""
        self._answer(lambda: requests.get(self.private + self.path, timeout=10))

    def do_POST(self) -> None:
        """Ask the inference port."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name: self.headers[name] for name in ("Content-Type", "Accept")}
        self._answer(
            lambda: requests.post(self.upstream + self.path, body, headers=headers, timeout=10)
        )

    def _answer(self, ask) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            status, body, headers = 401, b'{"code":401,"message":"no"}', {}
        else:
            reply = ask()
            status, body, headers = reply.status_code, reply.content, reply.headers
        self.send_response(status)
        for name in ("Content-Type", "X-Model-Digest", "X-Model-Version", "X-Precision"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def guarded(service: Running) -> Iterator[str]:
    """The shared service, behind a key."""
    private = f"http://127.0.0.1:{service.port + 3}"
    handler = type("Guarding", (Guard,), {"upstream": service.url, "private": private})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_key_is_asked_for_once(guarded: str, visit: Visit, watch: Watch) -> None:
    """A wrong key is said to be wrong; the right one lasts for the browser's session."""
    watch.allowed = ["401"]
    with exploring(guarded) as url:
        page = visit(url, wait=False)
        dialog = page.locator("dialog")
        expect(dialog.get_by_text("This service wants a key")).to_be_visible()
        for _ in range(3):
            page.keyboard.press("Escape")
        expect(dialog).to_be_visible()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(dialog.get_by_text("That key was refused")).to_be_visible()
        page.keyboard.type(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#lens output")).not_to_be_empty()
        expect(dialog).to_be_hidden()

        page.reload()

        expect(page.locator("#lens output")).not_to_be_empty()
        expect(dialog).to_be_hidden()
        assert page.evaluate("localStorage.length") == 0


def test_the_users_key_is_sent_for_the_page(guarded: str, visit: Visit) -> None:
    """With PINHOLE_API_KEY the page needs none, and never sees it."""
    with exploring(guarded, KEY) as url:
        page = visit(url)

        expect(page.locator("#lens output")).not_to_be_empty()
        assert page.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize("status", [200, 400])
def test_another_model_is_noticed(explorer: str, visit: Visit, watch: Watch, status: int) -> None:
    """Replies of another digest than the map's: the page offers to load the new model.

    One whose embeddings have another width refuses the page's.
    """
    watch.allowed = ["400"]
    page = visit(explorer)
    expect(page.locator("#changed")).to_be_hidden()

    def swapped(route: Route) -> None:
        reply = route.fetch()
        headers = {**reply.headers, "x-model-digest": "f" * 64}
        route.fulfill(response=reply, headers=headers, status=status)

    page.route("**/predictions/decode", swapped)
    hover(page, 0.3, 0.3)

    expect(page.locator("#changed")).to_be_visible()
    page.unroute_all(behavior="wait")
    with page.expect_event("load"):
        page.click("#reload")
    expect(page.locator("#lens output")).not_to_be_empty()
    expect(page.locator("#changed")).to_be_hidden()


def test_the_policy_holds(explorer: str, service: Running, visit: Visit, watch: Watch) -> None:
    """The browser refuses scripts, and hosts that answer, which the page's policy doesn't name."""
    watch.allowed = ["Content Security Policy"]
    page = visit(explorer)
    script = "const s = document.createElement('script'); s.textContent = 'window.in = 1';"

    page.evaluate(f"() => {{ {script} document.head.append(s); }}")
    fetch = f"fetch('{service.url}/ping', {{mode: 'no-cors'}})"
    refused = page.evaluate(f"{fetch}.then(() => false, () => true)")

    assert refused
    assert page.evaluate("window.in") is None
    watch.strangers.clear()


class Blank(BaseHTTPRequestHandler):
    """A site with one page, which is empty."""

    def do_GET(self) -> None:
        """Send the page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


CALL = """async ([url, body]) => {
  const headers = {"Content-Type": "image/png", "Authorization": "Bearer key", "X-Framing": "pad"};
  const reply = await fetch(url, {method: "POST", body, headers}).catch(() => null);
  return reply && [reply.status, reply.headers.get("X-Request-Id").length, await reply.json()];
}"""


def test_pages_of_other_sites(shipped_bundle: Bundle, chromium: Browser, tmp_path: Path) -> None:
    """A page calls a service that lists its site, and reads a refusal; no other site's page can."""
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Blank) as site,
        chromium.new_context() as context,
    ):
        threading.Thread(target=site.serve_forever, daemon=True).start()
        listed, other = (f"http://{name}:{site.server_port}" for name in ("127.0.0.1", "localhost"))
        page = context.new_page()
        with running(shipped_bundle, tmp_path, "--cors", listed, server="granian") as service:
            asked = [f"{service.url}/predictions/embed", "no image"]
            page.goto(listed)
            status, length, refusal = page.evaluate(CALL, asked)
            page.goto(other)
            unread = page.evaluate(CALL, asked)
        site.shutdown()

    assert (status, length, refusal["type"]) == (400, 32, "InvalidImage")
    assert unread is None
