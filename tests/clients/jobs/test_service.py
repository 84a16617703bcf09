"""The runner over HTTP, against a service that a test controls."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
from numpy.typing import NDArray

from pinhole import (
    BadRequest,
    Busy,
    Client,
    Health,
    PinholeError,
    Score,
    ServerError,
    Unavailable,
)
from pinhole.jobs import service as module
from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.rows import Answer
from pinhole.jobs.service import Flight, ServiceRunner

from .conftest import run


class FakeClient:
    """Embeds a file as (its length, its first byte); ``trouble`` may raise before it does."""

    def __init__(self, trouble: Callable[[Sequence[bytes]], None] = lambda files: None) -> None:
        self.trouble, self.digest, self.models = trouble, "digest", set[tuple[str, str]]()
        self.calls: list[int] = []

    def health(self) -> Health:
        self.trouble([])
        return Health(self.digest, "1.0", "fp32", embedding_width=2, latency_ms=1)

    def try_embed(self, images: Sequence[bytes]) -> list[NDArray[np.float32] | BadRequest]:
        self.trouble(images)
        self.calls.append(len(images))
        self.models.add((self.digest, "fp32"))
        return [
            BadRequest("unreadable", 400, "InvalidImage")
            if data[:1] == b"-"
            else np.array([len(data), data[0]], "f4")
            for data in images
        ]

    def embed(self, image: bytes | NDArray[np.uint8]) -> NDArray[np.float32]:
        if isinstance(image, np.ndarray):
            self.calls.append(len(image))
            if image.shape[1:] != (1, 2, 2):
                raise BadRequest("images as an array are uint8[N, 1, 2, 2]")
            return image.reshape(len(image), -1)[:, :2].astype("f4")
        (row,) = FakeClient.try_embed(self, [image])
        if isinstance(row, BadRequest):
            raise row
        return row

    def embed_each(
        self, images: bytes | NDArray[np.uint8] | list[bytes]
    ) -> Iterator[NDArray[np.float32] | BadRequest]:
        if isinstance(images, list):
            yield from self.try_embed(images)
        elif isinstance(images, bytes):
            yield self.embed(images)
        else:
            yield from self.embed(images)

    def score_each(
        self, images: bytes | NDArray[np.uint8] | list[bytes]
    ) -> Iterator[Score | BadRequest]:
        """Scores a file by its length: mse over 8, percentile over 10."""
        for found in self.embed_each(images):
            if isinstance(found, BadRequest):
                yield found
            else:
                size = float(found[0])
                yield Score(found, size / 8, size / 10, False, outside=size == 1)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that the runner has shown to the user; its pauses are short here."""
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(module, "QUIET_S", 0.1)
    return []


def open_runner(client: FakeClient, said: list[str], **options: float) -> ServiceRunner:
    """A runner of the fake."""
    return ServiceRunner(client, said.append, **options)  # type: ignore[arg-type]


def numbers(answers: Sequence[Answer | Fault]) -> list[object]:
    """The first number of each embedding, or the fault's reason."""
    return [a.reason if isinstance(a, Fault) else a.embedding[0] for a in answers]


def test_one_request_for_a_chunk(said: list[str]) -> None:
    """Answers are in order; a broken file has its fault in its place."""
    client = FakeClient()

    answers = open_runner(client, said).embed([b"a", b"-", b"ccc"])

    assert numbers(answers) == [1, "InvalidImage", 3]
    assert client.calls == [3]


def test_arrays_travel_as_arrays(said: list[str]) -> None:
    """Pixels are sent as one array; an array of another size than the model's ends the job."""
    client = FakeClient()
    runner = open_runner(client, said)

    assert numbers(runner.embed([np.full((1, 2, 2), 7, np.uint8)] * 3)) == [7, 7, 7]
    assert client.calls == [3]
    with pytest.raises(JobError, match=r"refuses the source's arrays: .*uint8\[N, 1, 2, 2\]"):
        runner.embed([np.zeros((1, 3, 3), np.uint8)])


def test_scores_come_along(said: list[str]) -> None:
    """Embedding and scores are one request; what lies outside is an outlier, whatever its rank."""
    client = FakeClient()
    runner = open_runner(client, said, score=0.5)

    answers = [*runner.embed([b"four", b"-", b"12345678", b"1"]), *runner.embed([b"four"])]

    found = [each for each in answers if isinstance(each, Answer)]
    assert [each.mse for each in found] == [0.5, 1, 0.125, 0.5]
    assert [each.percentile for each in found] == [0.4, 0.8, 0.1, 0.4]
    assert [each.outlier for each in found] == [False, True, True, False]
    assert client.calls == [4, 1]


def test_files_without_room_go_again_alone(said: list[str]) -> None:
    """A request has a budget of pixels; a file that it had no room for is sent again alone."""

    class Tight(FakeClient):
        def try_embed(self, images: Sequence[bytes]) -> list[NDArray[np.float32] | BadRequest]:
            full = BadRequest("pixels exceed the limit", 400, "PayloadTooLarge")
            return [*super().try_embed(images[:2]), *[full for _ in images[2:]]]

    answers = open_runner(Tight(), said).embed([b"a", b"bb", b"ccc", b"-", b"eeeee"])

    assert numbers(answers) == [1, 2, 3, "InvalidImage", 5]


def test_more_bytes_than_a_request_holds_are_cut(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk may hold more bytes than a request, when its files' sizes were unknown before."""
    monkeypatch.setattr(module, "LARGEST_TOGETHER", 10)
    client = FakeClient()

    answers = open_runner(client, said).embed([b"x" * size for size in (6, 6, 3, 20)])

    assert numbers(answers) == [6, 6, 3, 20]
    assert client.calls == [1, 1, 1, 1]


def test_file_that_breaks_the_service_is_found(said: list[str]) -> None:
    """A request on which the service fails is cut in two, down to the guilty file."""

    def trouble(files: Sequence[bytes]) -> None:
        if b"bomb" in files:
            raise ServerError("worker died")

    class Fragile(FakeClient):
        def embed(self, image: bytes | NDArray[np.uint8]) -> NDArray[np.float32]:
            if isinstance(image, bytes):
                self.trouble([image])
            return super().embed(image)

    answers = open_runner(Fragile(trouble), said).embed([b"a", b"bb", b"bomb", b"dddd", b"eeeee"])

    assert numbers(answers) == [1, 2, "ServerError", 4, 5]


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

    runner = open_runner(FakeClient(trouble), said)

    with pytest.raises(Unavailable):
        runner.embed([b"a", b"b"])


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


def test_the_width_is_the_models(said: list[str], tmp_path: Path) -> None:
    """Digest, precision and width come from the service."""
    model = open_runner(FakeClient(), said).model

    assert (model.digest, model.precision, model.width) == ("digest", "fp32", 2)


def test_service_that_hides_its_model_is_refused(said: list[str]) -> None:
    """Two models without digests couldn't be told apart, and their rows would be mixed."""
    client = FakeClient()
    client.digest = ""

    with pytest.raises(JobError, match="X-Model-Digest"):
        open_runner(client, said)


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
    asked = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            many = self.headers["Content-Type"] == "application/json"
            files = json.loads(body)["images"] if many else [""]
            rows = [[len(base64.b64decode(file)), 1] for file in files]
            answer = {"embeddings": rows, "errors": []} if many else {"embedding": rows[0]}
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Model-Digest", "digest")
            self.send_header("X-Precision", "fp32")
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = True
            if many:
                asked.set()

        def log_message(self, format: str, *args: object) -> None:
            pass

    def serve(port: int) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def close(server: ThreadingHTTPServer) -> None:
        server.shutdown()
        server.server_close()

    server = serve(0)
    port = server.server_address[1]
    out = tmp_path / "out"
    with Client(f"http://127.0.0.1:{port}") as client, ThreadPoolExecutor(1) as pool:
        runner = ServiceRunner(client, lambda line: None)
        runner.chunk_images = 4
        job = pool.submit(run, images, out, runner)
        asked.wait(10)
        close(server)
        time.sleep(0.5)
        server = serve(port)
        done = job.result(60)
        close(server)

    assert (done.totals.embedded, done.totals.failed) == (120, 0)
