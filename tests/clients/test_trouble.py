"""The client against a server that misbehaves: the right error, in bounded time."""

import contextlib
import email.utils
import itertools
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pinhole import BadRequest, Client, ServerError, Unavailable, transport
from pinhole.tensors import pack

from .rogue import (
    Behaviour,
    Rogue,
    answer,
    break_off,
    drip,
    drip_body,
    reset,
    reset_within,
    say,
    stall,
    stall_within,
)

ARRAY = pack(np.ones((2, 2), np.uint8))
TIMEOUT_S = 0.4  # The client's.
SOON_S = 2.0  # Several time-outs, for a busy host; a dripped answer takes far longer.

DIED = say(b'{"code": 500, "type": "InternalServerException", "message": "Worker died."}', "500 -")
BUSY = say(b'{"code": 503, "type": "Unavailable", "message": "queue full"}', "503 -")


@pytest.fixture
def rogue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rogue]:
    """A server that a test instructs; the client's own pauses are 0."""
    monkeypatch.setattr(transport, "PAUSE_S", 0)
    monkeypatch.setattr(transport, "JITTER_S", 0)
    rogue = Rogue()
    yield rogue
    rogue.stop()


@pytest.fixture
def client(rogue: Rogue) -> Iterator[Client]:
    """A client with a short time-out."""
    with Client(rogue.url, timeout_s=TIMEOUT_S) as client:
        yield client


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """Fail unless the block takes less than SOON_S."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < SOON_S


@pytest.mark.parametrize("behaviour", [reset, break_off, reset_within, say(b"", "junk")])
def test_broken_connection_is_mended(rogue: Rogue, client: Client, behaviour: Behaviour) -> None:
    """A connection that breaks once, before the answer or within it: the caller doesn't notice."""
    rogue.behaviours = [behaviour, say()]

    assert client.embed(b"x").tolist() == [1, 2]
    assert rogue.requests == 2


@pytest.mark.parametrize("behaviour", [reset, break_off, reset_within])
def test_connection_that_always_breaks(rogue: Rogue, client: Client, behaviour: Behaviour) -> None:
    """The client gives up after four retries."""
    rogue.behaviours = [behaviour]

    with soon(), pytest.raises(Unavailable, match=r"no answer from http://127\.0\.0\.1"):
        client.embed(b"x")
    assert rogue.requests == 5


@pytest.mark.parametrize(
    "behaviour",
    [stall, stall_within, drip(answer()), drip_body],
    ids=["stall", "stall within", "drip", "drip body"],
)
def test_answer_that_takes_too_long(rogue: Rogue, client: Client, behaviour: Behaviour) -> None:
    """The time-out is for the whole answer, however many bytes come; no retry follows."""
    rogue.behaviours = [behaviour]

    with (
        soon(),
        pytest.raises(
            Unavailable, match=r"no answer from .* within 0\.4 s: Timeout; a larger timeout_s"
        ),
    ):
        client.embed(b"x")
    assert rogue.requests == 1


def test_server_that_does_not_listen() -> None:
    """A request that the server doesn't read ends with the time-out too."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with (
            Client(url, timeout_s=TIMEOUT_S) as client,
            soon(),
            pytest.raises(Unavailable, match="Timeout"),
        ):
            client.embed(bytes(15 << 20))


def test_dead_service_blocks_no_client_of_another(rogue: Rogue, client: Client) -> None:
    """While one client waits for its service's limits, another has its answer."""
    rogue.behaviours = [say(b"", "404 -"), say(b'{"embeddings": [[1, 2], [3, 4]], "errors": []}')]
    with socket.create_server(("127.0.0.1", 0)) as deaf, ThreadPoolExecutor() as threads:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with Client(url, timeout_s=SOON_S) as stuck:
            waiting = threads.submit(stuck.try_embed, [b"x", b"y"])
            connection, _ = deaf.accept()
            with connection:
                assert client.embed([b"x", b"y"]).tolist() == [[1, 2], [3, 4]]
                assert not waiting.done()
            with pytest.raises(Unavailable):
                waiting.result()


def test_slow_answer_leaves_the_next_request_its_time(rogue: Rogue, client: Client) -> None:
    """The deadline of one answer is not that of the next on the same connection."""

    def dawdle(connection: socket.socket) -> None:
        time.sleep(TIMEOUT_S * 0.6)
        connection.sendall(answer())

    rogue.behaviours = [dawdle]

    for _ in range(3):
        assert client.embed(b"x").tolist() == [1, 2]
    assert (rogue.requests, rogue.connections) == (3, 1)


def test_answer_longer_than_it_says(rogue: Rogue, client: Client) -> None:
    """The answer is refused, and the rest of its bytes don't spoil the next answer."""
    rogue.behaviours = [say(length=5), say()]

    with pytest.raises(ServerError, match="not that of a pinhole service"):
        client.embed(b"x")
    assert client.embed(b"x").tolist() == [1, 2]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>welcome</html>",
        ARRAY[:-1],
        ARRAY.replace(b"(2, 2)", b"((2, 2"),
        ARRAY.replace(b"(2, 2), }", b"(99999999999999,), }"),
    ],
    ids=["nothing", "web page", "truncated", "broken head", "huge head"],
)
def test_something_else_instead_of_an_array(rogue: Rogue, client: Client, body: bytes) -> None:
    """A damaged array, or a reply of another server, is a ServerError."""
    rogue.behaviours = [say(body)]

    with pytest.raises(ServerError, match="not an array"):
        client.decode([[0, 0]])


@pytest.mark.parametrize(
    "body",
    [
        b'{"embeddings": [[1, 2]], "errors": []}',
        b'{"embeddings": [[1, 2], "x"], "errors": []}',
        b'{"embeddings": [[1, 2], null], "errors": []}',
        b'{"embeddings": 3, "errors": []}',
        b'{"embeddings": [[1, 2], [3, 4]], "errors": [7]}',
    ],
)
def test_answer_about_other_images(rogue: Rogue, client: Client, body: bytes) -> None:
    """An answer needs as many rows as images, each of numbers."""
    # The client first asks for the limits.
    rogue.behaviours = [say(b"", "404 -"), say(body)]

    with pytest.raises(ServerError, match="not that of a pinhole service"):
        client.embed([b"x", b"y"])


@pytest.mark.parametrize("status", ["429 -", "503 -"])
def test_asked_pause_is_kept(rogue: Rogue, client: Client, status: str) -> None:
    """The client waits for the seconds in Retry-After."""
    rogue.behaviours = [say(b"{}", status, Retry_After="1"), say()]
    started = time.monotonic()

    assert client.embed(b"x").tolist() == [1, 2]
    assert 1 <= time.monotonic() - started < 1 + SOON_S


def test_pauses_grow_within_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses double, are jittered, are at most a few seconds, and not shorter than asked."""
    pauses: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", pauses.append)

    for retry, asked_s in [(0, 0), (1, 0), (2, 0), (3, 0), (10, 0), (0, 1), (0, 3_600)]:
        transport.wait(retry, asked_s)

    jitters_s = np.subtract(pauses, [0.2, 0.4, 0.8, 1.6, 5, 1, 5])
    assert all(jitters_s + 1e-9 >= 0)
    assert all(jitters_s <= 0.2)
    assert len(set(np.round(jitters_s, 6))) > 1


@pytest.mark.parametrize(
    "moment", ["soon", email.utils.formatdate(time.time() - 60)], ids=["word", "past"]
)
def test_pause_that_makes_no_sense(rogue: Rogue, client: Client, moment: str) -> None:
    """A Retry-After that is no time, or has passed, asks for no pause."""
    rogue.behaviours = [say(b"{}", "503 -", Retry_After=moment), say()]

    with soon():
        assert client.embed(b"x").tolist() == [1, 2]


@pytest.mark.parametrize("status", ["500 -", "507 -"])
def test_worker_that_died_once(rogue: Rogue, client: Client, status: str) -> None:
    """Another worker answers, even if it is busy at first."""
    rogue.behaviours = [say(b"Worker died.", status), BUSY, say()]

    assert client.embed(b"x").tolist() == [1, 2]
    assert rogue.requests == 3


def test_worker_that_dies_of_a_request(rogue: Rogue, client: Client) -> None:
    """A second death is final: the request may be what kills them."""
    rogue.behaviours = [DIED, BUSY, DIED, say()]

    with pytest.raises(ServerError, match="Worker died"):
        client.embed(b"x")
    assert rogue.requests == 3


def test_redirection_is_named_not_followed(rogue: Rogue, client: Client) -> None:
    """Followed, a POST would become a GET."""
    rogue.behaviours = [say(b"", "301 -", Location="https://elsewhere.example")]

    with pytest.raises(ServerError, match=r"HTTP 301 .* https://elsewhere\.example"):
        client.embed(b"x")
    assert rogue.requests == 1


def test_trouble_of_one_request_ends_many(rogue: Rogue, client: Client) -> None:
    """A refusal of the whole request is raised, not told as one image's; later ones aren't sent."""
    refusal = b'{"code": 404, "type": "NotFound", "message": "no such path"}'
    rogue.behaviours = [say(refusal, "404 -")]
    taken = itertools.count()

    with pytest.raises(BadRequest, match="no such path"):
        client.try_embed(np.zeros((4, 4), np.uint8) for _ in taken)
    assert next(taken) < 2_000
