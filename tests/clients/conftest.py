"""A scripted server, and a client of it."""

from collections.abc import Iterator

import pytest

from pinhole import Client, transport

from .script import Script, serve


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """A scripted server on a free port; retries don't pause."""
    monkeypatch.setattr(transport, "PAUSE_S", 0)
    monkeypatch.setattr(transport, "JITTER_S", 0)
    monkeypatch.setattr(transport, "LONGEST_PAUSE_S", 1)
    with serve(Script()) as script:
        yield script


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    """A client of the scripted server."""
    with Client(script.url + "/", api_key="secret", timeout_s=2) as client:
        yield client
