"""The second server's own HTTP: what nginx and TorchServe themselves answer of the first's."""

import asyncio
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import requests
import yaml

import serve
from serve.bundle.images import write_png
from serve.bundle.limits import MAX_BODY_BYTES
from serve.bundle.manifest import Bundle
from serve.endpoints import ENDPOINTS
from serve.wire.npy import write_npy

from .conftest import STOP_S, Running, free_port, running, wait_until

FILE = write_png(np.full((1, 28, 28), 90, np.uint8))
PNG = {"Content-Type": "image/png"}
EMBED, INFER = "/predictions/embed", "/v2/models/embed/infer"


@pytest.fixture(scope="module")
def granian(shipped_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service on Granian."""
    with running(shipped_bundle, tmp_path_factory.mktemp("http"), server="granian") as service:
        yield service


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "allowed"),
    [
        ("GET", "/nowhere", 404, "NotFound", None),
        ("POST", "/predictions/nothing", 404, "NotFound", None),
        ("GET", EMBED, 405, "MethodNotAllowed", "POST"),
        ("DELETE", "/ready", 405, "MethodNotAllowed", "GET, HEAD"),
        ("POST", "/openapi.yaml", 405, "MethodNotAllowed", "GET, HEAD"),
    ],
)
def test_wrong_paths_and_methods(
    granian: Running, method: str, path: str, status: int, kind: str, allowed: str | None
) -> None:
    """They are refused in the contract's form, and a 405 says which methods there are."""
    reply = requests.request(method, granian.url + path, timeout=10)

    assert (reply.status_code, reply.json()["code"], reply.json()["type"]) == (status, status, kind)
    assert reply.headers.get("Allow") == allowed


def test_unknown_model_is_refused_in_its_protocol(granian: Running) -> None:
    """The Open Inference Protocol's errors have one field."""
    reply = requests.post(f"{granian.url}/v2/models/nothing/infer", timeout=10)

    assert (reply.status_code, list(reply.json())) == (404, ["error"])


def test_oip_is_refused_in_its_own_form(granian: Running) -> None:
    """An error on a path of the Open Inference Protocol is an object with ``error`` alone."""
    reply = requests.get(granian.url + INFER, timeout=10)

    assert (reply.status_code, reply.json()) == (
        405,
        {"error": "GET is not for this path; use POST"},
    )


@pytest.mark.parametrize("encoding", ["float", "base64", openai.omit])
def test_stock_openai_client(granian: Running, encoding: Any) -> None:
    """OpenAI's client, unmodified, can embed a file and a list, and read an error."""
    text, uri = b64encode(FILE).decode(), "data:image/png;base64," + b64encode(FILE).decode()
    expected = requests.post(granian.url + EMBED, FILE, headers=PNG, timeout=10).json()["embedding"]

    with openai.OpenAI(base_url=f"{granian.url}/v1", api_key="any") as client:
        embed = client.embeddings.create
        one = embed(model="mnist", input=text, encoding_format=encoding)
        many = embed(model="mnist", input=[text, uri], encoding_format=encoding)
        with pytest.raises(openai.NotFoundError, match='the model here is called "mnist"'):
            embed(model="text-embedding-3-small", input=text)
        with pytest.raises(openai.BadRequestError, match="entry 1: addresses are not") as refusal:
            embed(model="mnist", input=[text, "https://example.org/a.png"])

    answers = [row.embedding for row in [*one.data, *many.data]]
    if encoding == "base64":  # the client leaves it to its caller to read what that asked for
        answers = [np.frombuffer(b64decode(answer), "<f4") for answer in answers]
    assert np.array(answers) == pytest.approx(np.array([expected] * 3))
    assert (many.model, many.usage.total_tokens) == ("mnist", 0)
    assert (refusal.value.code, refusal.value.type) == ("InvalidImage", "invalid_request_error")


def test_stock_openai_client_in_asyncio(granian: Running) -> None:
    """OpenAI's client for asyncio works likewise, many requests at a time."""
    text = b64encode(FILE).decode()

    async def embed_many() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{granian.url}/v1", api_key="any") as client:
            calls = [client.embeddings.create(model="mnist", input=text) for _ in range(9)]
            return [reply.data[0].embedding for reply in await asyncio.gather(*calls)]

    answers = asyncio.run(embed_many())

    assert len(answers[0]) == 2
    assert answers == [answers[0]] * 9


def test_openai_is_refused_in_its_own_form(granian: Running) -> None:
    """Wrong methods and bodies over the limit are refused as OpenAI's clients understand it."""
    url = granian.url + "/v1/embeddings"
    replies = [
        requests.get(url, timeout=10),
        requests.post(url, bytes(MAX_BODY_BYTES + 1), headers=PNG, timeout=30),
        requests.post(url, FILE, headers=PNG, timeout=10),
    ]

    errors = [(reply.status_code, reply.json()["error"]["code"]) for reply in replies]
    assert errors == [(405, "MethodNotAllowed"), (413, "PayloadTooLarge"), (400, "InvalidRequest")]


@pytest.mark.parametrize("path", ["/", "/ready", "/v2", "/map.json", "/openapi.yaml"])
def test_head_and_options(granian: Running, path: str) -> None:
    """HEAD has the headers of GET and no body; OPTIONS says which methods there are."""
    whole = requests.get(granian.url + path, timeout=10)
    head = requests.head(granian.url + path, timeout=10)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]
    assert requests.options(granian.url + path, timeout=10).headers["Allow"] == "GET, HEAD"
    assert requests.options(granian.url + EMBED, timeout=10).headers["Allow"] == "POST"


def test_the_explorer_and_the_contract(granian: Running) -> None:
    """The page and its scripts are there, with a policy; so is the contract, as it is."""
    page = requests.get(granian.url + "/", timeout=10)
    scripts = [requests.get(f"{granian.url}/{name}", timeout=10) for name in ("main.js", "map.js")]
    contract = requests.get(granian.url + "/openapi.yaml", timeout=10)

    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert {script.headers["Content-Type"] for script in scripts} == {
        "text/javascript; charset=utf-8"
    }
    file = Path(serve.__file__).with_name("openapi.yaml")
    assert yaml.safe_load(contract.content) == yaml.safe_load(file.read_text())


def test_ids_are_sent_back(granian: Running) -> None:
    """A caller's request id is sent back, and an id that isn't fit to be logged is replaced."""
    replies = [
        requests.post(granian.url + EMBED, FILE, headers={**PNG, "X-Request-Id": id}, timeout=10)
        for id in ("order-67", "i" * 128, "a b", "i" * 129)
    ]
    *mine, made, too = (reply.headers["X-Request-Id"] for reply in replies)

    assert mine == ["order-67", "i" * 128]
    assert len(made) == len(too) == 32
    for method, path in (
        ("GET", "/ready"),
        ("GET", "/nowhere"),
        ("GET", EMBED),
        ("OPTIONS", EMBED),
    ):
        reply = requests.request(method, granian.url + path, timeout=10)
        assert len(reply.headers["X-Request-Id"]) == 32


@pytest.mark.parametrize("declared", [True, False])
def test_oversized_bodies(granian: Running, declared: bool) -> None:
    """A body over the limit is refused, whether its size is declared or found out."""
    piece = bytes(1 << 20)
    pieces = (piece for _ in range(MAX_BODY_BYTES // len(piece) + 1))
    body: Any = b"".join(pieces) if declared else pieces

    reply = requests.post(granian.url + EMBED, body, headers=PNG, timeout=30)

    assert (reply.status_code, reply.json()["type"]) == (413, "PayloadTooLarge")
    assert "the limit is 16,777,216" in reply.json()["message"]
    metrics = requests.get(f"http://127.0.0.1:{granian.port + 3}/metrics", timeout=10).text
    assert 'pinhole_requests_total{endpoint="embed",status="413"}' in metrics
    assert f"replies={reply.headers['X-Request-Id']}:413" in granian.log.read_text()


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "application/x-npy"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_empty_bodies(granian: Running, endpoint: str, content_type: str) -> None:
    """No body at all is refused, and the service goes on."""
    url, headers = f"{granian.url}/predictions/{endpoint}", {"Content-Type": content_type}

    assert requests.post(url, b"", headers=headers, timeout=10).status_code in (400, 415)
    assert granian.readiness().ok


def test_a_declared_body_is_not_waited_for(granian: Running) -> None:
    """A Content-Length over the limit is refused before any of the body has come."""
    connection = http.client.HTTPConnection("127.0.0.1", granian.port, timeout=10)
    connection.putrequest("POST", EMBED)
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()

    assert connection.getresponse().status == 413
    connection.close()


def test_pipelined_requests_are_answered_in_order(granian: Running) -> None:
    """Requests sent before any reply has come get their own replies, in order."""
    bodies = [write_png(np.full((1, 28, 28), shade, np.uint8)) for shade in range(10, 60)]
    expected = [
        requests.post(granian.url + EMBED, body, headers=PNG, timeout=10).json() for body in bodies
    ]
    requests_at_once = b"".join(
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%s"
        % (EMBED.encode(), len(body), body)
        for body in bodies
    )
    with (
        socket.create_connection(("127.0.0.1", granian.port), timeout=10) as connection,
        # A reader reads ahead: were there one for each reply, it would take the next reply's bytes.
        connection.makefile("rb") as replies,
    ):
        connection.sendall(requests_at_once)
        found = []
        for _ in bodies:
            assert replies.readline() == b"HTTP/1.1 200 OK\r\n"
            headers = http.client.parse_headers(replies)
            found.append(json.loads(replies.read(int(headers["Content-Length"]))))

    assert found == expected


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"Content-Length: -5\r\n\r\nabcdef",
        b"Content-Length: 99999999999999999999\r\n\r\n",
        b"".join(b"X-%d: a\r\n" % number for number in range(300)) + b"\r\n",
    ],
    ids=["two lengths", "negative", "huge", "flood"],
)
def test_what_is_not_http_is_refused(granian: Running, head: bytes) -> None:
    """Such a request gets a 4xx, its connection is closed, and the next request is answered."""
    with socket.create_connection(("127.0.0.1", granian.port), timeout=10) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\n%s" % (EMBED.encode(), head))
        reply = b""
        while piece := connection.recv(65_536):
            reply += piece

    assert reply.startswith(b"HTTP/1.1 4")
    assert requests.post(granian.url + EMBED, FILE, headers=PNG, timeout=10).ok


def test_callers_who_hang_up_leave_nothing_behind(small_bundle: Bundle, tmp_path: Path) -> None:
    """Whoever hangs up in the middle of a body, or before the reply, is forgotten."""
    large = write_npy(np.zeros((4_096, 28, 28), np.uint8))
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
    head += b"Content-Type: application/x-npy\r\n\r\n"
    with running(small_bundle, tmp_path, server="granian") as service:
        for sent in (100, len(large)):
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", service.port), timeout=10) as caller:
                    caller.sendall(head % (EMBED.encode(), len(large)) + large[:sent])

        assert requests.post(service.url + EMBED, FILE, headers=PNG, timeout=30).ok
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 15
        assert "may be lost" not in service.log.read_text()
        assert "Traceback" not in service.log.read_text()


def test_pages_of_a_listed_origin_may_call(small_bundle: Bundle, tmp_path: Path) -> None:
    """A preflight is allowed, and replies can be read, refusals too; of no other origin."""
    site, rights = "https://site.example", "Access-Control-Allow-Origin"
    asks = {"Access-Control-Request-Method": "POST"}
    asks["Access-Control-Request-Headers"] = "authorization,content-type,x-api-key"

    with running(small_bundle, tmp_path, "--cors", site, server="granian") as service:

        def call(method: str, path: str, origin: str, **options: Any) -> requests.Response:
            headers = {"Origin": origin, **options.pop("headers", {})}
            return requests.request(
                method, service.url + path, headers=headers, timeout=10, **options
            )

        preflight = call("OPTIONS", EMBED, site, headers=asks)
        stranger = call("OPTIONS", EMBED, "https://other.example", headers=asks)
        replies = [
            call("POST", EMBED, site, data=FILE, headers=PNG),
            call("POST", EMBED, site, data=b"broken"),
            call("POST", EMBED, site, data=bytes(MAX_BODY_BYTES + 1)),
            call("GET", EMBED, site),
            call("GET", "/nowhere", site),
            call("GET", "/ready", site),
        ]

    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
    assert preflight.headers["Access-Control-Allow-Headers"] == asks.popitem()[1]
    assert [reply.status_code for reply in replies] == [200, 400, 413, 405, 404, 200]
    assert all(reply.headers[rights] == site for reply in (preflight, *replies))
    assert not [name for name in stranger.headers if name.startswith("Access-Control")]


def test_a_stuck_request_ends_the_service(small_bundle: Bundle, tmp_path: Path) -> None:
    """A request that will never be answered is named, and the service exits for its supervisor."""
    port, log = free_port(), tmp_path / "serve.log"
    program = (
        "import sys, time; import serve.__main__, serve.granian.process as i, serve.service as s;"
        "i.STUCK_S = i.DRAIN_S = i.END_S = 1.0; embed = s.Service.embed\n"
        "s.Service.embed = lambda self, messages, report: (\n"
        "    time.sleep(1e6) if messages[0].headers.get('x-request-id') == 'poison'\n"
        "    else embed(self, messages, report))\n"
        "sys.exit(serve.__main__.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, str(small_bundle.folder), "--server", "granian"]
    with (
        log.open("w") as output,
        subprocess.Popen([*command, "--port", str(port)], stderr=output) as process,
    ):
        service, headers = Running(process, port, log, "granian"), {**PNG, "X-Request-Id": "poison"}
        try:
            assert wait_until(lambda: "READY" in log.read_text(), STOP_S)
            with pytest.raises(requests.ConnectionError):
                requests.post(service.url + EMBED, FILE, headers=headers, timeout=STOP_S)

            assert process.wait(STOP_S) == 1
        finally:
            process.kill()
    told = r"CRITICAL .*embed has been stuck for \d+ s: request poison; ending at once"
    assert re.search(told, log.read_text())


def test_small_requests_pass_large_ones(granian: Running) -> None:
    """Small requests are answered beside more callers of large ones than there are cores."""
    large, over = write_npy(np.zeros((4_096, 28, 28), np.uint8)), threading.Event()
    headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}

    def send(body: bytes, headers: dict[str, str]) -> float:
        started = time.monotonic()
        assert requests.post(granian.url + EMBED, body, headers=headers, timeout=60).ok
        return time.monotonic() - started

    def keep_sending() -> list[float]:
        times = [send(large, headers)]
        while not over.is_set():
            times.append(send(large, headers))
        return times

    count = (os.cpu_count() or 1) + 4
    with ThreadPoolExecutor(count) as pool:
        callers = [pool.submit(keep_sending) for _ in range(count)]
        time.sleep(0.5)
        small = [send(FILE, PNG) for _ in range(30)]
        over.set()
        slow = [seconds for caller in callers for seconds in caller.result()]

    assert sorted(small)[-3] < min(slow) / 2
