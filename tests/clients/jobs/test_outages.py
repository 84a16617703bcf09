"""The runner over HTTP, at a service that is late, busy, away or exchanged for another."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from numpy.typing import NDArray

from pinhole import BadRequest, Busy, Client, PinholeError, ServerError, Unavailable
from pinhole.jobs.errors import JobError
from pinhole.jobs.service import Flight, ServiceRunner

from .conftest import run
from .services import FakeClient, Handler, listening, numbers, open_runner


def late() -> Unavailable:
    """What a client raises when a service that it has reached doesn't answer in time."""
    error = Unavailable("no answer within 2 s: Timeout")
    error.__cause__ = requests.ReadTimeout()
    return error


@pytest.mark.parametrize("form", ["files", "arrays"])
def test_chunk_that_is_late_is_halved(said: list[str], form: str) -> None:
    """A service takes 20 ms an image and has 0.1 s: no request is sent again as it was."""

    class Slow(FakeClient):
        def try_embed(self, images: Sequence[bytes]) -> list[NDArray[np.float32] | BadRequest]:
            if len(images) > 5:
                self.calls.append(-len(images))
                raise late()
            return super().try_embed(images)

        def embed(self, image: bytes | NDArray[np.uint8]) -> NDArray[np.float32]:
            if isinstance(image, np.ndarray) and len(image) > 5:
                self.calls.append(-len(image))
                raise late()
            return super().embed(image)

    client = Slow()
    runner = open_runner(client, said)
    pixels = [np.full((1, 2, 2), index, np.uint8) for index in range(64)]
    files = [b"x" * (index + 1) for index in range(64)]

    answers = runner.embed(files if form == "files" else pixels)

    first = 1 if form == "files" else 0
    assert numbers(answers) == list(range(first, 64 + first))
    late_calls = [-call for call in client.calls if call < 0]
    assert late_calls[:4] == [64, 32, 16, 8]
    # Requests grow by one image with each answer, so that some are late again, and few.
    assert len(late_calls) < len(client.calls) / 2


def test_image_that_is_late_is_a_row(said: list[str]) -> None:
    """An image that a healthy service doesn't answer in time, twice, has an error."""
    client = FakeClient()
    runner = open_runner(client, said)

    def trouble(files: Sequence[bytes]) -> None:
        if b"endless" in files:
            raise late()

    client.trouble = trouble

    assert numbers(runner.embed([b"a", b"bb", b"endless", b"dddd"])) == [1, 2, "Late", 4]


def test_stalled_service_ends_the_job(said: list[str]) -> None:
    """If the service answers nothing in time, no image is blamed."""
    client = FakeClient()
    runner = open_runner(client, said, patience_s=0.3)

    def trouble(files: Sequence[bytes]) -> None:
        time.sleep(0.01)
        raise late()

    client.trouble = trouble

    with pytest.raises(Unavailable, match="no answer within 2 s"):
        runner.embed([b"a", b"bb"])


@pytest.mark.parametrize(
    "error", [Unavailable("no answer"), Busy("queue full"), ServerError("ill")]
)
def test_service_that_vanishes_and_returns(said: list[str], error: PinholeError) -> None:
    """The runner waits for the service and tells the user; no file is blamed."""
    back = time.monotonic() + 0.5

    def trouble(files: Sequence[bytes]) -> None:
        if time.monotonic() < back and client.calls:
            raise error

    client = FakeClient(trouble)
    runner = open_runner(client, said)
    runner.embed([b"first", b"chunk"])

    assert numbers(runner.embed([b"a", b"bb"])) == [1, 2]
    waiting, again = said
    assert waiting == f"{error}; waiting for it, 300 s at most"
    assert again.startswith("the service answers again, after ")


def test_patience_ends(said: list[str]) -> None:
    """A service that doesn't come back ends the job, with the service's error."""

    def trouble(files: Sequence[bytes]) -> None:
        if files:
            raise Unavailable("no answer")

    runner = open_runner(FakeClient(trouble), said, patience_s=0.3)

    with pytest.raises(Unavailable, match="no answer"):
        runner.embed([b"a", b"b"])


def test_stopping_ends_the_waiting(said: list[str]) -> None:
    """A job that is being ended doesn't wait for the service."""

    def trouble(files: Sequence[bytes]) -> None:
        if files:
            runner.stop()
            raise Unavailable("no answer")

    runner, started = open_runner(FakeClient(trouble), said), time.monotonic()

    with pytest.raises(Unavailable, match="no answer"):
        runner.embed([b"a", b"b"])
    assert time.monotonic() - started < 10  # its patience is 300 s


def test_other_model_ends_the_job(said: list[str]) -> None:
    """A service is given another model: its embeddings aren't mixed with the first model's.

    Not even if it is given the first model again.
    """
    client = FakeClient()
    runner = open_runner(client, said)
    for digest in ("digest", "other", "digest"):
        client.digest = digest
        runner.embed([b"a", b"b"])

    with pytest.raises(JobError, match="now embeds with model other in fp32; the job began with"):
        runner.confirm()


def test_a_proxy_that_drops_headers_is_told(said: list[str]) -> None:
    """An answer without a name isn't taken for another model's."""
    client = FakeClient()
    runner = open_runner(client, said)
    client.digest = ""
    runner.embed([b"a"])

    with pytest.raises(JobError, match="is there a proxy that drops headers"):
        runner.confirm()


def test_fewer_requests_for_a_busy_service() -> None:
    """Half as many after a refusal, a little more after each answer, never less than one."""
    flight, flying, most = Flight(), 0, 0

    def fly() -> None:
        nonlocal flying, most
        with flight:
            flying += 1
            most = max(most, flying)
            time.sleep(0.02)
            flying -= 1

    def together(count: int) -> int:
        nonlocal most
        most = 0
        threads = [threading.Thread(target=fly) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return most

    assert together(12) == 4
    for _ in range(9):
        flight.refused()
    assert together(3) == 1
    for _ in range(100):
        flight.answered()
    assert together(20) == 8


def test_misplaced_refusals_are_waited_out(said: list[str]) -> None:
    """A 404, as while a model is exchanged, says nothing of the images."""
    left = [BadRequest("no such model", 404, "NotFound")] * 2

    def trouble(files: Sequence[bytes]) -> None:
        if files and left:
            raise left.pop()

    answers = open_runner(FakeClient(trouble), said).embed([b"a", b"bb"])

    assert numbers(answers) == [1, 2]


def test_real_service_goes_and_comes_back(folder: Callable[..., Path], tmp_path: Path) -> None:
    """A server on a real port is shut in the middle of a job and opened again: no row is lost."""
    images = folder([b"%03d" % index for index in range(120)])
    asked, gone = threading.Event(), threading.Event()

    class Closing(Handler):
        def begin(self, count: int) -> None:
            self.close_connection = True
            if asked.is_set() and not gone.is_set():  # all but the first are lost with the server
                gone.wait(30)
                raise ConnectionResetError
            asked.set()

    with ThreadPoolExecutor(1) as pool:
        with listening(Closing) as url:
            runner = ServiceRunner(Client(url), lambda line: None, 300)
            runner.chunk_images = 4
            job = pool.submit(run, images, tmp_path / "out", runner)
            assert asked.wait(10)
        gone.set()
        time.sleep(0.5)
        with listening(Closing, urlsplit(url).port or 0):
            done = job.result(60)

    assert (done.totals.embedded, done.totals.failed) == (120, 0)
