"""One batch of requests to as many replies, in order; knows nothing of TorchServe.

All readable items of all requests of a batch go through the engine together.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serve.anomaly import is_outlier, percentile
from serve.bundle import Bundle
from serve.engine import Engine
from serve.errors import RequestError
from serve.journal import Report
from serve.wire.replies import (
    Reconstruction,
    Reply,
    decode_reply,
    embed_reply,
    error_reply,
    reconstruct_reply,
)
from serve.wire.requests import (
    Item,
    Message,
    Request,
    read_embedding_request,
    read_image_request,
)

HELD = 512  # images whose pixels are floats at a time: four times the bytes they become


class Operation(Protocol):
    """One endpoint: a batch of messages to as many replies."""

    def __call__(self, messages: Sequence[Message], report: Report | None = None) -> list[Reply]:
        """Answer; what the batch was and what it cost is added to ``report``."""


class Service:
    """The three endpoints of one bundle on one engine.

    ``embed``, ``reconstruct`` and ``decode`` each answer a batch of messages, one reply each, in
    order; a message that can't be read gets its own error and costs its neighbours nothing. What
    the batch was and what it cost is added to a report.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self._manifest = bundle.manifest
        self._engine = engine
        self.headers = {
            "X-Model-Digest": bundle.manifest.digest,
            "X-Model-Version": bundle.manifest.version,
            "X-Precision": engine.precision,
        }

    def operation(self, endpoint: str) -> Operation:
        """The method called ``embed``, ``reconstruct`` or ``decode``."""
        return {
            "embed": self.embed,
            "reconstruct": self.reconstruct,
            "decode": self.decode,
        }[endpoint]

    def embed(self, messages: Sequence[Message], report: Report | None = None) -> list[Reply]:
        """Images → embeddings."""

        def write(request: Request, rows: Sequence[Any]) -> Reply:
            return embed_reply(request, rows, self._manifest.embedding_width)

        return answer(messages, self._read(["embeddings"]), self._embed, write, report)

    def reconstruct(self, messages: Sequence[Message], report: Report | None = None) -> list[Reply]:
        """Images → what the model remembers of them, their mse and anomaly score."""

        def write(request: Request, rows: Sequence[Any]) -> Reply:
            return reconstruct_reply(request, rows, self._manifest.image.shape)

        read = self._read(["reconstructions", "mse"])
        return answer(messages, read, self._reconstruct, write, report)

    def decode(self, messages: Sequence[Message], report: Report | None = None) -> list[Reply]:
        """Embeddings → images."""

        def read(message: Message) -> Request:
            return read_embedding_request(message, self._manifest.embedding_width)

        def write(request: Request, rows: Sequence[Any]) -> Reply:
            return decode_reply(request, rows, self._manifest.image.shape)

        return answer(messages, read, self._decode, write, report)

    def _read(self, outputs: Sequence[str]) -> Callable[[Message], Request]:
        """A reader of images for an endpoint with these outputs."""
        return lambda message: read_image_request(message, self._manifest.image, outputs)

    def _embed(self, images: NDArray[np.uint8], report: Report) -> Iterator[NDArray[np.float32]]:
        with report.phase("infer"):
            embeddings = self._engine.embed(images)
        yield from embeddings

    def _reconstruct(self, images: NDArray[np.uint8], report: Report) -> Iterator[Reconstruction]:
        calibration = self._manifest.calibration
        for chunk in chunks(images):
            with report.phase("infer"):
                embeddings = self._engine.embed(chunk)
                decoded = self._engine.decode(embeddings)
                errors = np.square(decoded - chunk / np.float32(255)).mean(axis=(1, 2, 3))
                pictures = to_bytes(decoded)
            for pixels, mse, embedding in zip(pictures, errors, embeddings, strict=True):
                outlier = is_outlier(float(mse), embedding, calibration)
                report.outliers += outlier
                rank = percentile(float(mse), calibration)
                yield Reconstruction(pixels, float(mse), rank, outlier)

    def _decode(
        self, embeddings: NDArray[np.float32], report: Report
    ) -> Iterator[NDArray[np.uint8]]:
        for chunk in chunks(embeddings):
            with report.phase("infer"):
                pictures = to_bytes(self._engine.decode(chunk))
            yield from pictures


def chunks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Cut into runs of HELD rows."""
    return (rows[start : start + HELD] for start in range(0, len(rows), HELD))


def answer(
    messages: Sequence[Message],
    read: Callable[[Message], Request],
    run: Callable[[NDArray[Any], Report], Iterable[Any]],
    write: Callable[[Request, Sequence[Any]], Reply],
    report: Report | None,
) -> list[Reply]:
    """Read every message, run all readable items at once, and write every reply."""
    report = report or Report()
    with report.phase("read"):
        requests = [read_or_error(message, read) for message in messages]
        readable = [item for request in requests for item in arrays(request)]
        report.bad.update(type(error).__name__ for error in refusals(requests))
        report.images += len(readable)
        stacked = np.stack(readable) if readable else None
    results = iter(()) if stacked is None else iter(run(stacked, report))
    with report.phase("write"):
        return [
            error_reply(request, message.oip)
            if isinstance(request, RequestError)
            else write(request, in_place(request.items, results))
            for message, request in zip(messages, requests, strict=True)
        ]


def refusals(requests: Sequence[Request | RequestError]) -> Iterator[RequestError]:
    """What was refused: whole requests, and single items of the others."""
    for request in requests:
        if isinstance(request, RequestError):
            yield request
        else:
            yield from (item for item in request.items if isinstance(item, RequestError))


def in_place(items: Sequence[Item], results: Iterator[Any]) -> list[Any]:
    """The next results, one for each readable item, None for the others."""
    return [None if isinstance(item, RequestError) else next(results) for item in items]


def read_or_error(message: Message, read: Callable[[Message], Request]) -> Request | RequestError:
    """The request, or why it can't be read."""
    try:
        return read(message)
    except RequestError as error:
        return error


def arrays(request: Request | RequestError) -> list[NDArray[Any]]:
    """The readable items of a request."""
    if isinstance(request, RequestError):
        return []
    return [item for item in request.items if not isinstance(item, RequestError)]


def to_bytes(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32[...] in [0, 1] → uint8[...], rounded."""
    scaled: NDArray[np.float32] = np.rint(images * np.float32(255))
    return scaled.astype(np.uint8)
