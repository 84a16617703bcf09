"""Addresses, keys, connections and retries of the client, against the same scripted server."""

import base64
import math
import os
import re
import time
import traceback
from pathlib import Path

import pytest

from pinhole import BadRequest, Busy, Client, PinholeError, ServerError, Unauthorized, Unavailable

from .script import Script, error


def test_netrc_does_not_replace_the_key(
    script: Script, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, requests would replace the key by an entry for the host in the .netrc."""
    (tmp_path / "netrc").write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    script.say(200, {"embedding": [1, 2]})

    client.embed(b"x")

    assert script.requests[0][1]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "127.0.0.1:8080"}, "http://HOST:PORT .* got 127"),
        ({"url": "http://"}, "http://HOST:PORT"),
        ({"url": "http://host:99999"}, "got http://host:99999"),
        ({"url": "http://host?key=secret"}, "no query; got http://host$"),
        ({"url": "http://host/ path"}, "http://HOST:PORT"),
        ({"url": "ftp://me:secret@host"}, r"got \*\*\*@host"),
        ({"url": "me:secret@host"}, r"got \*\*\*@host"),
        ({"url": "http://me:se/cret@host"}, r"got \*\*\*@host"),
        ({"url": "http://me:secret@[::1"}, r"got \*\*\*@\[::1"),
        ({"api_key": "secret\n"}, "without spaces and line breaks"),
        ({"api_key": "secr\u00e9t"}, "an API key is ASCII"),
        ({"api_key": "sec\u0440et"}, "an API key is ASCII"),
        *(({"timeout_s": s}, "above 0") for s in (0, -1, math.nan, math.inf, 1e10)),
    ],
)
def test_what_no_request_can_use_is_refused(arguments: dict[str, object], words: str) -> None:
    """The error is a ValueError at once, in words that hold no secret."""
    with pytest.raises(ValueError, match=words) as refusal:
        Client(**{"url": "http://127.0.0.1:9", **arguments})

    assert not re.search("secr|cret", str(refusal.value))


def test_credentials_in_the_url_are_sent_not_shown(script: Script) -> None:
    """They are Basic authentication, unless there is a key; no error repeats them."""
    url = script.url.replace("//", "//me:s%40cret@")
    script.say(200, {"embedding": [1, 2]})

    for key in (None, "key"):
        with Client(url, key) as client:
            client.embed(b"x")
            assert client.url == script.url
    script.say(0)
    with Client(url) as client, pytest.raises(Unavailable) as failure:
        client.embed(b"x")

    sent = [headers["Authorization"] for _, headers, _ in script.requests[:2]]
    assert sent == ["Basic " + base64.b64encode(b"me:s@cret").decode(), "Bearer key"]
    assert "cret" not in "".join(traceback.format_exception(failure.value))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_has_connections_of_its_own(script: Script, client: Client) -> None:
    """Two processes on one connection read each other's answers; closing concerns one process."""
    script.say(200, {"embedding": [1, 2]})
    client.embed(b"parent")

    for _ in range(2):
        if (child := os.fork()) == 0:
            client.embed(b"child")
            client.close()
            os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        client.embed(b"parent")

    parent, first, again, second, at_last = script.ports
    assert parent == again == at_last
    assert len({parent, first, second}) == 3


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (404, BadRequest),
        (413, BadRequest),
        (500, ServerError),
    ],
)
def test_final_answers_are_not_retried(
    script: Script, client: Client, status: int, expected: type[PinholeError]
) -> None:
    """Sending the same request again would change nothing."""
    script.say(status, error(status))

    with pytest.raises(expected, match="why"):
        client.embed(b"x")
    assert len(script.requests) == 1


@pytest.mark.parametrize("status", [429, 503, 0])
def test_passing_trouble_is_retried(script: Script, client: Client, status: int) -> None:
    """Busy twice, or disconnected twice, then well: the caller doesn't notice."""
    script.say(status, error(status), Retry_After="0")
    script.say(status, error(status), Retry_After="0")
    script.say(200, {"embedding": [1, 2]})

    assert client.embed(b"x").tolist() == [1, 2]
    assert len(script.requests) == 3


def test_lasting_trouble_is_named(script: Script, client: Client) -> None:
    """Busy to the end is Busy; no server at all is Unavailable."""
    script.say(503, error(503, message="queue full"), Retry_After="0")
    with pytest.raises(Busy, match="queue full"):
        client.embed(b"x")
    assert len(script.requests) == 5

    with (
        Client("http://127.0.0.1:9") as nobody,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"),
    ):
        nobody.embed(b"x")


def test_long_pauses_are_cut_short(script: Script, client: Client) -> None:
    """A Retry-After of an hour is not obeyed."""
    script.say(503, error(503), Retry_After="3600")
    script.say(200, {"embedding": [1, 2]})
    started = time.monotonic()

    client.embed(b"x")

    assert time.monotonic() - started < 30


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"code": 502}'])
def test_foreign_error_pages_are_survived(script: Script, client: Client, body: bytes) -> None:
    """A proxy's own error has another form; the status is shown."""
    script.say(502, body)

    with pytest.raises(
        ServerError, match=r"HTTP 502 from http://127.0.0.1:\d+/predictions/embed, "
    ):
        client.embed(b"x")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "::bad", "socks5://127.0.0.1:9"])
def test_a_proxy_that_fails_is_named(
    script: Script, client: Client, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """The service isn't blamed for the proxy that the environment names."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(Unavailable, match="of the proxy that the environment names; NO_PROXY=HOST"):
        client.embed(b"x")
