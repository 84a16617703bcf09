"""Replicas that misbehave, and callers who ask too much: none of them harms another caller."""

import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from ...e2e.conftest import wait_until
from ..conftest import KEYS, ROOT
from .conftest import NAMES, PORT, URL, ask, gateway, tries

TIMEOUT_S = 12  # in place of 310 s; above proxy_next_upstream_timeout


def test_request_that_hangs_is_tried_once(tmp_path: Path) -> None:
    """A request that no replica answers occupies one of them, once."""
    (tmp_path / "proxy.conf").write_text(shortened())
    (tmp_path / "proxy.conf").chmod(0o644)
    tmp_path.chmod(0o755)
    with gateway(tmp_path / "proxy.conf"):
        started, before = time.monotonic(), tries("hang")
        reply = ask(f"hang 100 {' '.join(NAMES)}")
        seconds = time.monotonic() - started

    assert (reply.status_code, reply.json()["type"]) == (503, "Unavailable")
    assert "did not answer in time" in reply.json()["message"]
    assert (tries("hang") - before).total() == 1
    assert TIMEOUT_S <= seconds < TIMEOUT_S + 5


def shortened() -> str:
    """proxy.conf with a shorter time-out."""
    text = (ROOT / "serve" / "gateway" / "proxy.conf").read_text()
    return text.replace("proxy_read_timeout 310s", f"proxy_read_timeout {TIMEOUT_S}s")


@pytest.mark.usefixtures("plain")
def test_lost_connection_is_made_good_elsewhere() -> None:
    """Where two of three replicas lose their callers, the third answers each of them."""
    replies = [ask("die one two") for _ in range(9)]

    assert [reply.status_code for reply in replies] == [200] * 9
    assert tries("die")["one"] > 0


@pytest.mark.usefixtures("plain")
def test_private_ports_that_hang_up() -> None:
    """Where every launcher hangs up, readiness and metadata are 503 in the contract's form."""
    ready = requests.get(f"http://127.0.0.1:{PORT}/ready", timeout=9)
    metadata = requests.get(f"http://127.0.0.1:{PORT}/v2/models/embed", timeout=9)

    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert (metadata.status_code, metadata.json()["type"]) == (503, "Unavailable")


@pytest.mark.usefixtures("plain")
def test_deadly_request_is_tried_on_each_replica() -> None:
    """A request on which every replica dies gets 503, and isn't begun anew.

    nginx doesn't count a try on a kept connection, which may have been stale: so two for each.
    """
    before = tries("die")
    reply = ask(f"die {' '.join(NAMES)}")

    assert reply.status_code == 503
    found = tries("die") - before
    assert set(found) == set(NAMES)
    assert max(found.values()) <= 2


def test_hanging_up_frees_no_slot() -> None:
    """A caller who hangs up keeps the slots for as long as the work goes on."""
    with gateway(PINHOLE_CONNECTIONS="2"):
        for _ in range(2):
            hang_up("hang 5 one two three")
        refused = ask("echo")
        freed = wait_until(lambda: ask("echo").ok, 8)

    assert (refused.status_code, refused.json()["type"]) == (429, "Busy")
    assert freed


def hang_up(command: str) -> None:
    """Send a request, and close the connection 0.2 s later."""
    head = f"POST /predictions/embed HTTP/1.1\r\nHost: x\r\nContent-Length: {len(command)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", PORT)) as connection:
        connection.sendall((head + command).encode())
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("size", "chunked", "endpoint"),
    [(1_000_000, False, "embed"), (10, True, "embed"), (10_000, False, "decode")],
)
def test_large_requests_are_counted_together(size: int, chunked: bool, endpoint: str) -> None:
    """So many large requests run at once and no more, half of them of one caller."""
    url = URL.replace("embed", endpoint)
    with gateway(PINHOLE_LARGE="3", PINHOLE_API_KEY=",".join(KEYS)), ThreadPoolExecutor(8) as pool:
        slow = "hang 4 one two three"
        first = [pool.submit(ask, slow, size, KEYS[0], chunked, url) for _ in range(4)]
        time.sleep(1)
        second = [pool.submit(ask, slow, size, KEYS[1], chunked, url) for _ in range(4)]
        time.sleep(1)
        small = ask("echo", 0, KEYS[0])
        statuses = [
            Counter(call.result().status_code for call in calls) for calls in (first, second)
        ]
        refused = next(call.result() for call in second if call.result().status_code == 429)

    assert statuses == [{200: 2, 429: 2}, {200: 1, 429: 3}]
    assert refused.elapsed.total_seconds() < 2
    assert refused.headers["Retry-After"] == "1"
    assert "3 large requests may run in all" in refused.json()["message"]
    assert small.status_code == 200


def test_large_request_is_refused_before_its_body_comes() -> None:
    """The 429 of a large request doesn't wait for a byte of its body."""
    head = b"POST /predictions/embed HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
    with (
        gateway(PINHOLE_LARGE="1"),
        socket.create_connection(("127.0.0.1", PORT)) as first,
        socket.create_connection(("127.0.0.1", PORT)) as second,
    ):
        first.sendall(head)
        time.sleep(0.3)
        second.sendall(head)
        second.settimeout(2)
        answer = second.recv(1_000)

    assert answer.startswith(b"HTTP/1.1 429 ")


def test_wrong_keys_are_limited() -> None:
    """Who guesses keys, or asks with a wrong method, is limited, and callers with a key are not."""
    with gateway(PINHOLE_RATE="2", PINHOLE_API_KEY=",".join(KEYS)):
        time.sleep(3)  # until the requests that found the gateway up are forgotten
        guesses = Counter(ask("echo", key="wrong").status_code for _ in range(40))
        known = ask("echo", key=KEYS[0]).status_code
        methods = Counter(
            requests.get(URL, headers={"Authorization": f"Bearer {KEYS[1]}"}, timeout=9).status_code
            for _ in range(40)
        )

    assert guesses.keys() == {401, 429}
    assert guesses[429] > 30
    assert known == 200
    assert methods.keys() == {405, 429}
    assert methods[429] > 30
