"""What the gateway lets through to the replicas, what it lets back, and what it says itself."""

import json
import re
import socket
import time
from itertools import product

import pytest
import requests

from ..conftest import KEYS, docker
from .conftest import NAMES, PNG, PORT, URL, ask, container, gateway, remove, tries

KEPT_HEADERS = {
    "Accept": "image/png",
    "Content-Type": "image/png",
    "Content-Encoding": "identity",
    "Inference-Header-Content-Length": "7",
    "X-Framing": "pad",
    "X-Polarity": "keep",
    "X-Seen": "true",
    "X-Request-Id": "mine-1",
    "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
}


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("said", "status", "error_type"),
    [
        (401, 401, "Unauthorized"),
        (404, 404, "NotFound"),
        (405, 405, "MethodNotAllowed"),
        (500, 503, "Unavailable"),
        (503, 503, "Unavailable"),
        (507, 503, "Unavailable"),
    ],
)
def test_torchserves_own_errors(said: int, status: int, error_type: str, chunked: bool) -> None:
    """What TorchServe itself says gets the contract's form, with a Content-Length or without."""
    reply = ask(f"say {said}", chunked=chunked)

    assert (reply.status_code, reply.json()["type"]) == (status, error_type)
    assert reply.headers.get("Retry-After") == ("1" if status == 503 else None)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("headers", [{}, {"X-Request-Id": "a b", "traceparent": "made up"}])
def test_ids_are_made(headers: dict[str, str]) -> None:
    """A request without an id, or with one unfit for a log, gets one, and so does the replica."""
    reply = requests.post(URL, b"echo\n", headers=PNG | headers, timeout=9)
    missing = requests.get(f"http://127.0.0.1:{PORT}/nope", timeout=9)

    seen = reply.json()["headers"]
    assert re.fullmatch("[0-9a-f]{32}", seen["X-Request-Id"])
    assert reply.headers["X-Request-Id"] == seen["X-Request-Id"]
    assert "traceparent" not in seen
    assert len(missing.headers["X-Request-Id"]) == 32


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("command", "status", "kind", "code"),
    [
        ("say 404", 404, "invalid_request_error", "NotFound"),
        ("refuse 404", 404, "invalid_request_error", "NotFound"),
        ("say 500", 503, "server_error", "Unavailable"),
        ("refuse 500", 500, "server_error", "InternalError"),
        ("refuse 503", 503, "server_error", "Unavailable"),
    ],
)
def test_openais_errors(command: str, status: int, kind: str, code: str) -> None:
    """What goes wrong on OpenAI's path is told in OpenAI's form."""
    reply = ask(command, url=f"http://127.0.0.1:{PORT}/v1/embeddings")
    error = reply.json()["error"]

    assert reply.status_code == status
    assert (error["type"], error["code"], error["param"]) == (kind, code, None)
    assert reply.headers.get("Retry-After") == ("1" if status == 503 else None)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("status", [400, 413, 415])
def test_handlers_refusals_pass(status: int, chunked: bool) -> None:
    """A handler's own words pass, with a Content-Length or without."""
    reply = ask(f"refuse {status}", chunked=chunked)

    assert (reply.status_code, reply.json()["message"]) == (status, "the handler's")


def test_nothing_gets_past_the_gateway() -> None:
    """No name of its inner locations leads anywhere, and no line end in a path is passed on."""
    split = "x%20HTTP/1.1%0d%0aHost:%20a%0d%0a%0d%0aPOST%20/predictions/embed"
    inner = ("unsized", "preflight", "400", "401", "405", "nothing", "unread")
    paths = [f"/{name}{rest}" for name in inner for rest in ("", "/x", "/predictions/embed")]
    paths += [f"/unsized/{split}", "//unsized/x", "/%75nsized/x", "/predictions/embed%0A"]
    paths += ["/v2/models/embed/infer%0A", "/v2/models/embed%0A", "/ready%0A"]
    with gateway(PINHOLE_API_KEY=KEYS[0]):
        for path, headers in product(paths, ({}, {"Authorization": f"Bearer {KEYS[0]}"})):
            for method in ("GET", "POST"):
                url = f"http://127.0.0.1:{PORT}{path}"
                reply = requests.request(method, url, data=b"past\n", headers=headers, timeout=9)
                assert reply.status_code in (404, 405), path
                assert reply.json()["code"] == reply.status_code
        reply = requests.post(
            f"http://127.0.0.1:{PORT}/unsized/x", bytes(17 << 20), headers=PNG, timeout=30
        )
        assert reply.status_code in (405, 413)
    assert sum(tries("past").values()) == 0


@pytest.mark.usefixtures("plain")
def test_a_web_form_is_passed_on_as_text() -> None:
    """As curl sends a file unasked: TorchServe would fail to parse it, and be taken for broken."""
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    reply = requests.post(URL, b"echo\n", headers=headers, timeout=9)

    assert reply.json()["headers"]["Content-Type"] == "text/plain"


@pytest.mark.usefixtures("plain")
def test_chunks_that_are_none() -> None:
    """A body that isn't chunked as it says gets a 400 in the contract's form."""
    head = "POST /predictions/embed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    with socket.create_connection(("127.0.0.1", PORT)) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(10_000)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "InvalidRequest"


@pytest.mark.usefixtures("plain")
def test_only_known_headers_pass() -> None:
    """The headers that the handlers read reach them, and no others do; both logs know the id."""
    others = {"Cookie": "c" * 12_000, "X-Canary": "x", "Authorization": "Bearer secret"}
    headers = KEPT_HEADERS | others | {"Accept-Encoding": "identity", "User-Agent": "me"}
    reply = requests.post(URL, b"echo\n", headers=headers, timeout=9)
    transport = {"Host": "inference", "Content-Length": "5"}
    time.sleep(1.5)  # the log is written every second
    log = docker("logs", container("gateway"))

    assert reply.json()["headers"] == KEPT_HEADERS | transport
    assert '"request_id":"mine-1"' in log
    assert f'"traceparent":"{KEPT_HEADERS["traceparent"]}"' in log
    assert reply.headers["X-Request-Id"] == "mine-1"
    assert any("mine-1" in docker("logs", container(name)) for name in NAMES)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "a" * 5_000},
        {"Accept": "a" * 3_000, "X-Polarity": "b" * 3_000},
        {"Cookie": "c" * 17_000},
        {f"X-{number}": "d" * 1_000 for number in range(17)},
    ],
)
def test_too_many_headers(headers: dict[str, str]) -> None:
    """More headers than nginx or TorchServe takes are refused in the contract's form."""
    reply = requests.post(URL, b"echo\n", headers=PNG | headers, timeout=9)

    assert (reply.status_code, reply.json()["type"]) == (400, "InvalidRequest")


@pytest.mark.parametrize(
    ("options", "resolver", "replicas"),
    [
        (["--dns", "192.0.2.1"], "192.0.2.1", "service"),
        (["--dns", "fd00::53"], "[fd00::53]", "service"),
        (["--env", "PINHOLE_RESOLVER=192.0.2.2"], "192.0.2.2", "service"),
        (
            ["--dns", "192.0.2.1", "--env", "PINHOLE_SERVICE=pinhole.a.svc.cluster.local"],
            "192.0.2.1",
            "pinhole.a.svc.cluster.local",
        ),
    ],
)
def test_where_replicas_are_looked_up(options: list[str], resolver: str, replicas: str) -> None:
    """The system's first name server is asked, or another; for ``service``, or another name."""
    remove("gateway")
    show = "sed 's|^exec .*|cd /tmp/gateway; cat http.conf inference.conf private.conf|' /start.sh"

    told = docker(
        "run", "--rm", *options, "--entrypoint", "sh", "pinhole-gateway", "-c", f"{show} | sh"
    )

    assert f"resolver {resolver} " in told
    assert f"server {replicas}:8080 resolve" in told
    assert f"server {replicas}:8083 resolve" in told
