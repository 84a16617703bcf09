"""The gateway alone, in front of three replicas that misbehave as they are told."""

import json
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
import requests

from ..e2e.conftest import wait_until
from .conftest import KEYS, ROOT, docker

NETWORK, NAMES, PORT = "pinhole-trouble", ("one", "two", "three"), 18_081
URL = f"http://127.0.0.1:{PORT}/predictions/embed"
PNG = {"Content-Type": "image/png"}
TIMEOUT_S = 12  # in place of 310 s; above proxy_next_upstream_timeout
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


@pytest.fixture(scope="module", autouse=True)
def replicas() -> Iterator[None]:
    """Three replicas in a network of their own, by the name that the gateway looks for."""
    remove(*NAMES)
    subprocess.run(["docker", "network", "rm", NETWORK], capture_output=True, timeout=60)
    docker("network", "create", NETWORK)
    script = f"{ROOT / 'tests' / 'docker' / 'replica.py'}:/replica.py:ro"
    run = ["run", "--detach", "--network", NETWORK, "--network-alias", "service"]
    image = ["--volume", script, "--entrypoint", "python", "pinhole-granian", "/replica.py"]
    for name in NAMES:
        docker(*run, "--name", container(name), *image, name)
    yield
    remove(*NAMES)
    docker("network", "rm", NETWORK)


@contextmanager
def gateway(proxy: Path | None = None, **variables: str) -> Iterator[None]:
    """A gateway with these variables, and perhaps with another proxy.conf."""
    remove("gateway")
    run = ["run", "--detach", "--network", NETWORK, "--name", container("gateway")]
    for name, value in ({"PINHOLE_RATE": "10000"} | variables).items():
        run += ["--env", f"{name}={value}"]
    if proxy is not None:
        run += ["--volume", f"{proxy}:/etc/nginx/proxy.conf:ro"]
    run += ["--publish", f"127.0.0.1:{PORT}:8080"]
    docker(*run, "pinhole-gateway")
    try:
        assert wait_until(is_up, 20)
        yield
    finally:
        remove("gateway")


@pytest.fixture
def plain() -> Iterator[None]:
    """A gateway without keys that has found all replicas."""
    with gateway():
        assert wait_until(lambda: {ask("echo").json()["name"] for _ in NAMES} == set(NAMES), 20)
        yield


def is_up() -> bool:
    """Whether the gateway answers, and has found a replica."""
    try:
        return ask("echo", key=KEYS[0]).ok
    except requests.RequestException:
        return False


def container(name: str) -> str:
    """The name of one of these tests' containers."""
    return f"{NETWORK}-{name}"


def remove(*names: str) -> None:
    """Remove containers, if they are there."""
    command = ["docker", "rm", "--force", *map(container, names)]
    subprocess.run(command, capture_output=True, timeout=60)


def ask(
    command: str, size: int = 0, key: str = "", chunked: bool = False, url: str = URL
) -> requests.Response:
    """POST a command to the replicas, in a body of so many bytes."""
    body = f"{command}\n".encode().ljust(size)
    headers = PNG | ({"Authorization": f"Bearer {key}"} if key else {})
    return requests.post(url, iter([body]) if chunked else body, headers=headers, timeout=100)


def tries(command: str) -> Counter[str]:
    """How many requests with this command each replica has seen so far."""
    lines = {name: docker("logs", container(name)).splitlines() for name in NAMES}
    return Counter({name: sum(line.startswith(command) for line in lines[name]) for name in NAMES})


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
