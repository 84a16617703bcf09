"""Services that a test controls: a client that answers by itself, and a server on a real port."""

import base64
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from numpy.typing import NDArray

from pinhole import BadRequest, Health, Score
from pinhole.jobs.errors import Fault
from pinhole.jobs.rows import Answer
from pinhole.jobs.service import ServiceRunner


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


def open_runner(
    client: FakeClient, said: list[str], patience_s: float = 300, **options: float
) -> ServiceRunner:
    """A runner of the fake."""
    return ServiceRunner(client, said.append, patience_s, **options)  # type: ignore[arg-type]


def numbers(answers: Sequence[Answer | Fault]) -> list[object]:
    """The first number of each embedding, or the fault's reason."""
    return [a.reason if isinstance(a, Fault) else a.embedding[0] for a in answers]


class Handler(BaseHTTPRequestHandler):
    """Embeds each file as (its length, 1)."""

    protocol_version = "HTTP/1.1"

    def begin(self, count: int) -> None:
        """Called before the answer to a request of many files."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer: object = {"embedding": [len(body), 1]}
        if self.headers["Content-Type"] == "application/json":
            rows = [[len(base64.b64decode(file)), 1] for file in json.loads(body)["images"]]
            answer = {"embeddings": rows, "errors": []}
            self.begin(len(rows))
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Model-Digest", "digest")
        self.send_header("X-Precision", "fp32")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server that takes it quietly when a job hangs up: the next test may look at stderr."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def listening(handler: type[Handler], port: int = 0) -> Iterator[str]:
    """A server on a free port, or on this port; yields its URL."""
    server = Server(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
