"""The explorer in Debian's Chromium, with real services: run by ``make browser-test``."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from pinhole.explorer.server import ExplorerServer
from serve.bundle.manifest import Bundle

from ..e2e.conftest import Running, running

Visit = Callable[..., Page]

WAIT_S = 30  # The longest wait for anything: machines that run tests are slow and shared.


@contextmanager
def exploring(url: str, api_key: str = "") -> Iterator[str]:
    """The explorer of the service at ``url``; yields its own address."""
    with ExplorerServer(url, api_key, timeout_s=10) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.url
        finally:
            server.shutdown()


@pytest.fixture(scope="session")
def service(shipped_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The shipped weights, served once for all tests."""
    folder = tmp_path_factory.mktemp("service")
    with running(shipped_bundle, folder, server="granian") as service:
        yield service


@pytest.fixture(scope="session")
def explorer(service: Running) -> Iterator[str]:
    """The explorer of the shipped weights."""
    with exploring(service.url) as url:
        yield url


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium is not installed; make browser-test installs it where it may")
    expect.set_options(timeout=1000 * WAIT_S)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watch:
    """Records what a page must not do: write errors to the console, or call another host.

    Attributes:
        allowed: an error with one of these texts may be written, as the browser does for every
            refused request.
    """

    def __init__(self) -> None:
        self.allowed: list[str] = []
        self.complaints: list[str] = []
        self.strangers: list[str] = []

    def follow(self, page: Page, home: str) -> None:
        """Record a page's console errors, and its requests to hosts other than ``home``."""
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self._note("error", str(error)))
        page.on("request", lambda request: self._check(request.url, home))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(each in text for each in self.allowed):
            self.complaints.append(text)

    def _check(self, url: str, home: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("blob", "data") and parts.netloc != home:
            self.strangers.append(url)


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Fails a test whose page wrote errors to the console or called another host."""
    watch = Watch()
    yield watch
    assert watch.complaints == []
    assert watch.strangers == []


@pytest.fixture
def visit(chromium: Browser, watch: Watch) -> Iterator[Visit]:
    """Open the explorer at an address, as a visitor with the given properties; wait for its map."""
    contexts = []

    def open_page(url: str, wait: bool = True, **visitor: Any) -> Page:
        visitor.setdefault("viewport", {"width": 1280, "height": 900})
        visitor.setdefault("reduced_motion", "reduce")
        context = chromium.new_context(**visitor)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * WAIT_S)
        watch.follow(page, urlsplit(url).netloc)
        page.goto(url)
        if wait:
            page.wait_for_selector("body:not(.loading)")
        return page

    yield open_page
    for context in contexts:
        context.close()
