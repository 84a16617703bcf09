"""Requests that are no proper HTTP, callers who never end, and thousands of damaged requests."""

import asyncio
import contextlib
import io
import itertools
import json
import random
import re
import socket
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import settings
from PIL import Image
from schemathesis import Case, SerializationContext
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import serve
from serve.bundle.images import write_png
from tests.e2e.conftest import Running
from tests.faults.client import Answer, Callers, Question
from tests.faults.processes import descriptors, memory_bytes, tree
from tests.faults.test_hostile_bodies import LEAKS, TYPES
from tests.faults.traffic import Card
from tests.serve.pictures.files import chunk, png, whole_files
from tests.serve.pictures.test_damage import damaged

REQUESTS = 10_000  # of damaged requests, to each server
CALLERS = 16
PATIENCE_S = 60.0
MOST_GROWTH = 500 << 20  # bytes, over a whole test: the JVM's heap grows at first
MOST_MORE = 100 << 20  # bytes, over the second half of the damaged requests
MOST_DESCRIPTORS = 20
SOCKET_S = 4.0  # for a server to close a connection that it has refused
LORISES = 200
FILE = write_png(np.full((1, 28, 28), 90, np.uint8))
EMBED = "/predictions/embed"
POST = b"POST /predictions/embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
SIZED = POST + b"Content-Length: %d\r\n\r\n" % len(FILE) + FILE
CONTRACT = schemathesis.openapi.from_path(Path(serve.__file__).with_name("openapi.yaml"))

Note = Callable[[str], None]


@pytest.fixture(autouse=True)
def unharmed(service: Running) -> Iterator[None]:
    """Whatever a test sends, no process dies or grows, nothing stays open, nothing is logged."""
    pids = tree(service.process.pid)
    memory, open_before = memory_bytes(pids), descriptors(pids)
    right = requests.post(service.url + EMBED, FILE, timeout=30).json()
    yield
    assert requests.post(service.url + EMBED, FILE, timeout=30).json() == right
    assert tree(service.process.pid) == pids
    time.sleep(0.5)  # for the last connections to be closed
    assert memory_bytes(pids) - memory < MOST_GROWTH
    assert descriptors(pids) - open_before < MOST_DESCRIPTORS
    assert "Traceback (most recent call last)" not in service.log.read_text()


# Thousands of damaged requests.


def test_damaged_requests(service: Running, deck: Sequence[Card], note: Note) -> None:
    """Each gets a documented answer, and the sound requests among them their own."""
    began, cards, pids = time.monotonic(), hostile(deck), tree(service.process.pid)
    seen = asyncio.run(send_all(service, itertools.islice(cards, REQUESTS // 2)))
    memory = memory_bytes(pids)
    seen += asyncio.run(send_all(service, cards))
    more = memory_bytes(pids) - memory
    note(
        f"{service.server}: {seen.total():,} damaged requests in {time.monotonic() - began:.0f} s: "
        + ", ".join(f"{count:,} x {status}" for status, count in sorted(seen.items()))
        + f"; the second half took {more >> 20} MiB more"
    )
    assert more < MOST_MORE
    assert seen[200] < seen.total() / 2


async def send_all(service: Running, cards: Iterator[Card]) -> Counter[int]:
    """Send requests from several callers at a time; counts the statuses."""
    callers, seen = Callers(service.port), Counter[int]()

    async def send() -> None:
        for card in cards:
            answer = await asyncio.wait_for(callers.ask(card.question), PATIENCE_S)
            seen[answer.status] += 1
            assert card.is_right(answer), (card.question, answer)
            check(service.server, card.question, answer)

    await asyncio.gather(*(send() for _ in range(CALLERS)))
    callers.close()
    return seen


def hostile(deck: Sequence[Card]) -> Iterator[Card]:
    """Damaged files, damaged requests of every form, odd headers; every tenth is sound."""
    dice = random.Random(4)  # noqa: S311 - repeatable, not secret
    small = [card for card in deck if len(card.question.body) < 20_000]
    for number in range(REQUESTS):
        if number % 10 == 0:
            yield dice.choice(small)
        elif number % 3 == 0:
            yield Card(damaged_file(dice), lambda answer: True, 1)
        else:
            yield Card(damaged_request(dice, dice.choice(small).question), lambda answer: True, 1)


def damaged_file(dice: random.Random) -> Question:
    """A file of a random format with some bytes changed, or cut short."""
    whole = dice.choice(list(whole_files().values()))
    (file,) = damaged(whole, dice.randrange(1 << 30), 1, 0)
    cut = dice.choice((len(file), len(file), dice.randrange(len(file))))
    path = f"/predictions/{dice.choice(('embed', 'reconstruct'))}"
    return Question("POST", path, file[:cut], {"Content-Type": "image/*"})


def damaged_request(dice: random.Random, sound: Question) -> Question:
    """A request whose body was damaged, or a header of which was replaced by another's."""
    headers = dict(sound.headers)
    if dice.random() < 0.3:
        headers[
            dice.choice(
                (
                    "Content-Type",
                    "Accept",
                    "X-Framing",
                    "X-Polarity",
                    "X-Seen",
                    "Inference-Header-Content-Length",
                    "Content-Encoding",
                )
            )
        ] = dice.choice(
            (
                "image/png",
                "application/json",
                "multipart/form-data",
                "multipart/form-data; boundary=",
                "application/x-npy",
                "*/*;q=0",
                "gzip",
                "pad",
                "-1",
                "9" * 30,
                "\xff\x80",
                "",
                "a" * 3_000,
            )
        )
        return Question(sound.method, sound.path, sound.body, headers)
    (body,) = damaged(sound.body, dice.randrange(1 << 30), 1, 0)
    return Question(sound.method, sound.path, body, headers)


def check(server: str, question: Question, answer: Answer) -> None:
    """An answer is documented, in the contract's form, and tells nothing of the inside.

    What TorchServe itself answers is told by the header that it lacks, and may be in its own words.
    """
    if server == "torchserve" and "x-model-digest" not in answer.headers:
        assert answer.status >= 400, (question, answer)
        return
    if answer.status == 200:
        return
    assert answer.status in TYPES, (question, answer)
    error = json.loads(answer.body)
    if question.path.startswith("/v2"):
        assert list(error) == ["error"]
    else:
        assert (error["code"], error["type"] in TYPES[answer.status]) == (answer.status, True)
    assert not LEAKS.search(answer.body), answer


@schemathesis.serializer("application/x-npy", "image/*")
def as_bytes(context: SerializationContext, value: object) -> bytes:
    """Turn a value of schemathesis into a body that is no array and no image."""
    return value if isinstance(value, bytes) else repr(value).encode()


@CONTRACT.parametrize()
@settings(max_examples=200, deadline=None, derandomize=True)
def test_contract(case: Case, service: Running) -> None:
    """Whatever hypothesis makes of the contract is answered as the contract says."""
    if service.server == "torchserve":
        pytest.skip("tests/docker asks for the contract of the gateway before TorchServe")
    case.call_and_validate(
        base_url=service.url,
        checks=[
            content_type_conformance,
            not_a_server_error,
            response_headers_conformance,
            response_schema_conformance,
            status_code_conformance,
        ],
    )


# Bombs.


def declared_png(width: int, height: int) -> bytes:
    """A PNG of so many black pixels, all of them there, in a few kilobytes."""
    packer = zlib.compressobj(9)
    row = bytes(width // 8 + 1)
    pieces = [packer.compress(row) for _ in range(height)]
    body = chunk(b"IDAT", b"".join(pieces) + packer.flush()) + chunk(b"IEND", b"")
    head = png(1, 0, np.zeros((1, 1), np.uint8), width=width)
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\1\0\0\0\0"
    return head[:8] + chunk(b"IHDR", size) + body


def large(format: str, **options: object) -> bytes:
    """A file of 8,000 x 8,000 pixels."""
    file = io.BytesIO()
    Image.new("L", (8_000, 8_000)).save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: declared_png(30_000, 30_000),
        lambda: large("JPEG"),
        lambda: large("GIF"),
        lambda: large("WEBP", lossless=True),
        lambda: large("TIFF", compression="tiff_lzw"),
        lambda: large("BMP")[: 1 << 20],
        lambda: b"P5 60000 60000 255\n" + bytes(1 << 16),
        lambda: (
            whole_files()["PNG"][:33]
            + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 << 20)))
            + whole_files()["PNG"][33:]
        ),
    ],
    ids=["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PGM", "text"],
)
def test_bombs(service: Running, bomb: Callable[[], bytes]) -> None:
    """A small file of very many pixels is refused before they are unpacked; notes are not read."""
    file, began = bomb(), time.monotonic()
    headers = {"Content-Type": "image/*", "X-Framing": "pad"}
    reply = requests.post(service.url + EMBED, file, headers=headers, timeout=30)

    assert reply.status_code in (200, 400)
    assert (reply.status_code == 200) == file.startswith(whole_files()["PNG"][:33])
    assert time.monotonic() - began < 5


def test_packed_bodies_are_not_unpacked(service: Running) -> None:
    """A body that says it is compressed is refused, whatever it would become."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    packed = zlib.compress(bytes(200 << 20), wbits=31)

    assert (
        requests.post(service.url + EMBED, packed, headers=headers, timeout=30).status_code == 415
    )


# Sockets.


def send(port: int, data: bytes, seconds: float = SOCKET_S) -> tuple[list[int], bytes, bool]:
    """Send bytes; gives the statuses that come back, all that comes back, and if it was closed."""
    reply = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        try:
            while piece := connection.recv(1 << 16):
                reply += piece
        except TimeoutError:
            return statuses(reply), reply, False
        except ConnectionError:
            pass
    return statuses(reply), reply, True


def statuses(reply: bytes) -> list[int]:
    """The statuses of the replies in a stream."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", reply)]


INNER = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"
HUGE = b"9" * 30
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = {
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "a list of lengths": POST + b"Content-Length: 5, 6\r\n\r\nabcdef",
    "negative length": POST + b"Content-Length: -5\r\n\r\nabcdef",
    "huge length": POST + b"Content-Length: " + HUGE + b"\r\n\r\n",
    "length with a sign": POST + b"Content-Length: +5\r\n\r\nabcde",
    "length in hex": POST + b"Content-Length: 0x5\r\n\r\nabcde",
    "space before the colon": POST + b"Content-Length : 5\r\n\r\nabcde",
    "a header of 100 kB": POST + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "2,000 headers": POST + b"".join(b"X-%d: a\r\n" % n for n in range(2_000)) + b"\r\n",
    "a path of 100 kB": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "chunk of no size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "chunk of a word": CHUNKED + b"zebra\r\nabc\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n",
    "huge chunk": CHUNKED + b"f" * 20 + b"\r\nabc\r\n0\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: identity, zebra\r\n\r\nabc",
    "NUL in a path": b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in a header": POST + b"X: a\0b\r\nContent-Length: 1\r\n\r\na",
    "no version": b"GET /ready\r\n\r\n",
    "another version": b"GET /ready HTTP/9.9\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(50),
    "nothing of sense": bytes(range(256)) * 10,
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_not_http(service: Running, name: str) -> None:
    """It is refused, or its connection is closed; it is never answered as if it were sound."""
    seen, reply, _ = send(service.port, REFUSED[name])

    assert len(seen) <= 1, reply
    worst = 599 if service.server == "torchserve" else 499  # its own 500 of HTTP/2 harms nobody
    assert all(400 <= status <= worst for status in seen), reply
    assert service.server == "torchserve" or not LEAKS.search(reply), reply


SMUGGLED = {
    "TE and CL": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "CL and TE": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n" % (5 + len(INNER))
    + INNER,
    "TE, hidden": POST
    + b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n" % (5 + len(INNER))
    + INNER,
    "TE, behind a space": POST
    + b"Transfer-Encoding : chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n" % (5 + len(INNER))
    + INNER,
    "folded": POST
    + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n" % (5 + len(INNER))
    + INNER,
    "bare line feeds": POST + b"Content-Length: %d\n\n" % len(INNER) + INNER,
}


@pytest.mark.parametrize("name", list(SMUGGLED))
def test_smuggling(service: Running, name: str) -> None:
    """A body is never taken for the next request, whichever of two lengths a proxy believes."""
    seen, reply, _ = send(service.port, SMUGGLED[name], 3)

    assert len(seen) <= 1, reply
    assert all(400 <= status < 500 for status in seen), reply


@pytest.mark.parametrize(
    ("sent", "length"),
    [(FILE, len(FILE) + 100), (FILE, len(FILE) - 20), (b"", 10), (FILE[:9], 1 << 24)],
    ids=["long", "short", "empty", "very long"],
)
def test_wrong_length(service: Running, sent: bytes, length: int) -> None:
    """A body that is not as long as was said is waited for in vain, or read as far as was said."""
    seen, _, _ = send(service.port, POST + b"Content-Length: %d\r\n\r\n" % length + sent, 3)

    assert all(400 <= status < 500 for status in seen)


@pytest.mark.parametrize("name", ["X-Request-Id", "Content-Type", "Accept", "X-Framing", "X-Other"])
def test_bytes_that_are_no_letters(service: Running, name: str) -> None:
    """Any header may hold bytes that are no ASCII."""
    head = b"POST /predictions/embed HTTP/1.1\r\nHost: x\r\n%s: \xff\x80\xe9\r\n" % name.encode()
    data = head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(FILE) + FILE

    seen, reply, _ = send(service.port, data, 3)

    assert seen in ([200], [400], [406], [415]), reply


@pytest.mark.parametrize(
    "target",
    [
        b"/%00",
        b"/..%2f..%2fetc/passwd",
        b"/\xff",
        b"/predictions/%ff",
        b"//predictions/embed",
        b"/predictions/embed/../../x",
    ],
)
def test_paths(service: Running, target: bytes) -> None:
    """No path leads out of the service."""
    data = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    seen, reply, _ = send(service.port, data)

    assert len(seen) <= 1
    assert all(400 <= status < 500 for status in seen), reply
    assert b"root:" not in reply


def test_absolute_target_and_expectation(service: Running) -> None:
    """A target with a host, and a body that waits for 100 Continue, are ordinary HTTP."""
    host = b"POST http://127.0.0.1:%d/predictions/embed HTTP/1.1\r\n" % service.port
    absolute = SIZED.replace(b"POST /predictions/embed HTTP/1.1\r\n", host)
    expects = SIZED.replace(b"Host: x\r\n", b"Host: x\r\nExpect: 100-continue\r\n")
    close = (b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")

    assert send(service.port, expects.replace(*close), 3)[0] in ([100, 200], [200])
    found, _, _ = send(service.port, absolute.replace(*close), 3)
    assert found == (
        [404] if service.server == "torchserve" else [200]
    )  # nginx sends no such target


def test_slow_callers(service: Running) -> None:
    """Callers who send a byte a second, of head or body, keep nobody waiting."""
    with contextlib.ExitStack() as stack:
        callers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 5))
            for _ in range(LORISES)
        ]
        for number, caller in enumerate(callers):
            caller.sendall(SIZED[: -40 if number % 2 else 40])
        for _ in range(6):
            for caller in callers:
                with contextlib.suppress(ConnectionError):
                    caller.sendall(b"a")
            began = time.monotonic()
            assert requests.post(service.url + EMBED, FILE, timeout=10).ok
            assert time.monotonic() - began < 2
            time.sleep(1)


def test_pipelining(service: Running) -> None:
    """Sound and unsound requests that are sent at once are answered in order."""
    if service.server == "torchserve":
        pytest.skip("TorchServe's own port crosses pipelined replies: docs/torchserve.md says so")
    bodies = [write_png(np.full((1, 28, 28), shade, np.uint8)) for shade in range(0, 250, 5)]
    bodies[1::3] = [b"broken"] * len(bodies[1::3])
    alone = [requests.post(service.url + EMBED, body, timeout=10) for body in bodies]

    at_once = [POST + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    seen, reply, _ = send(service.port, b"".join(at_once), 3)

    assert seen == [each.status_code for each in alone]
    rest = reply
    for each in alone:
        _, found, rest = rest.partition(each.content)
        assert found
