"""Turn a batch of requests into replies, in order, whatever server the requests came through.

All readable images or embeddings of a batch go through the engine together.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.bundle.engine.protocol import Engine
from serve.bundle.errors import RequestError, without_frames
from serve.bundle.images import to_pixels
from serve.bundle.manifest import Bundle
from serve.bundle.score import OUTLIER_PERCENTILE, positions, score_each
from serve.endpoints import ENDPOINTS
from serve.errors import InvalidEmbedding
from serve.wire.message import Message
from serve.wire.replies import (
    Reconstruction,
    Reply,
    decode_reply,
    embed_reply,
    error_reply,
    reconstruct_reply,
    within_limit,
)
from serve.wire.requests import (
    Item,
    Request,
    check_failures,
    read_embedding_request,
    read_image_request,
)

# Images decoded at a time. It bounds the memory of their float32 pixels, which then become bytes.
DECODED_AT_ONCE = 512

# Numbers of a batch that are put into its report for the metrics: 8 percentiles, or 4 embeddings of
# the shipped model. Each takes a few microseconds to count.
SAMPLE_SIZE = 8
PHASE_NAMES = ("read", "infer", "write")


@dataclass
class Report:
    """The counts and the timings of one batch.

    Attributes:
        images: images or embeddings that went through the model.
        bad: refusals by error type, of whole requests and of single images.
        outliers: images called outliers.
        percentiles: of a sample of the images that were reconstructed.
        positions: of a sample of the embeddings that were asked for; see serve.bundle.score.
        seconds: spent in each phase of PHASE_NAMES.
    """

    images: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    outliers: int = 0
    percentiles: list[float] = field(default_factory=list)
    positions: list[list[float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASE_NAMES, 0.0))

    def forget(self) -> None:
        """Begin anew, as if nothing had been counted."""
        vars(self).update(vars(Report()))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


# A method of Service that serves one endpoint: it replies to each message, and adds the batch's
# counts and timings to the report.
Operation = Callable[[Sequence[Message], Report], list[Reply]]


class Service:
    """The endpoints of one bundle on one engine.

    ``embed``, ``reconstruct`` and ``decode`` each read every message of a batch, run all readable
    items together, and write one reply for each message, in order. A message that can't be read
    gets its own error and costs its neighbours nothing.

    Attributes:
        manifest: of the bundle.
        headers: for every reply: which model made it, and in which precision.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.manifest = bundle.manifest
        self._engine = engine
        self.headers = {
            "X-Model-Digest": bundle.manifest.digest,
            "X-Model-Version": bundle.manifest.version,
            "X-Precision": engine.precision,
        }

    def operation(self, endpoint: str) -> Operation:
        """The method that serves an endpoint of serve.endpoints.ENDPOINTS."""
        return {
            "embed": self.embed,
            "reconstruct": self.reconstruct,
            "decode": self.decode,
        }[endpoint]

    def embed(self, messages: Sequence[Message], report: Report | None = None) -> list[Reply]:
        """Images → embeddings."""
        report = report or Report()
        read = partial(read_image_request, manifest=self.manifest, endpoint=ENDPOINTS["embed"])
        requests = read_all(messages, read, report)
        embeddings = run_all(requests, self._engine.embed, report)
        seen = np.asarray(sample(embeddings, self.manifest.embedding_width)).tolist()
        report.positions += [positions(row, self.manifest.calibration) for row in seen]
        write = partial(embed_reply, width=self.manifest.embedding_width)
        return write_all(messages, requests, embeddings, write, report)

    def reconstruct(self, messages: Sequence[Message], report: Report | None = None) -> list[Reply]:
        """Images → reconstructions, with their mse and anomaly score."""
        report = report or Report()
        read = partial(
            read_image_request, manifest=self.manifest, endpoint=ENDPOINTS["reconstruct"]
        )
        requests = read_all(messages, read, report)
        found = run_all(requests, self._reconstruct, report)
        report.outliers += sum(each.outlier for each in found)
        report.percentiles += [each.percentile for each in sample(found)]
        write = partial(reconstruct_reply, shape=self.manifest.image.shape)
        return write_all(messages, requests, found, write, report)

    def decode(self, messages: Sequence[Message], report: Report | None = None) -> list[Reply]:
        """Embeddings → images."""
        report = report or Report()
        read = partial(read_embedding_request, manifest=self.manifest, endpoint=ENDPOINTS["decode"])
        requests = read_all(messages, read, report)
        images = run_all(requests, lambda rows: list(self._decode(rows)), report)
        failed = (each for each in images if isinstance(each, InvalidEmbedding))
        report.bad.update(type(each).__name__ for each in failed)
        write = partial(decode_reply, shape=self.manifest.image.shape)
        return write_all(messages, requests, images, write, report)

    def _reconstruct(self, images: NDArray[np.uint8]) -> list[Reconstruction]:
        return [each for chunk in chunks(images) for each in self._reconstruct_chunk(chunk)]

    def _reconstruct_chunk(self, images: NDArray[np.uint8]) -> Iterator[Reconstruction]:
        embeddings = self._engine.embed(images)
        decoded = self._engine.decode(embeddings)
        scores = score_each(images, decoded, embeddings, self.manifest.calibration)
        columns = images, to_pixels(decoded), embeddings, scores
        for image, pixels, embedding, (mse, rank, outside) in zip(*columns, strict=True):
            outlier = rank > OUTLIER_PERCENTILE or outside
            yield Reconstruction(image, pixels, mse, rank, outlier, embedding, outside)

    def _decode(
        self, embeddings: NDArray[np.float32]
    ) -> Iterator[NDArray[np.uint8] | InvalidEmbedding]:
        for chunk in chunks(embeddings):
            images = self._engine.decode(chunk)
            for image, pixels in zip(images, to_pixels(images), strict=True):
                yield pixels if np.isfinite(image).all() else self._overflow()

    def _overflow(self) -> InvalidEmbedding:
        """The error of an embedding within the contract's limit, but too far out for fp16."""
        return InvalidEmbedding(
            f"the model can't draw this embedding in {self._engine.precision}: its numbers are "
            "too large"
        )


def sample(rows: Sequence[Any] | NDArray[Any], width: int = 1) -> Any:
    """Some rows of ``width`` numbers, evenly spread: SAMPLE_SIZE numbers, but one row at least."""
    return rows[:: max(1, math.ceil(len(rows) * width / SAMPLE_SIZE))]


def read_all(
    messages: Sequence[Message], read: Callable[[Message], Request], report: Report
) -> list[Request | RequestError]:
    """Read every message of a batch, or find out why it can't be read."""
    with report.phase("read"):
        requests = [read_or_error(message, read) for message in messages]
    report.bad.update(type(error).__name__ for error in refusals(requests))
    return requests


def run_all(
    requests: Sequence[Request | RequestError],
    run: Callable[[NDArray[Any]], Sequence[Any] | NDArray[Any]],
    report: Report,
) -> Sequence[Any] | NDArray[Any]:
    """Run all readable items of a batch at once: one result for each, in order."""
    items = [item for request in requests for item in readable_items(request)]
    report.images += len(items)
    if not items:
        return ()
    with report.phase("read"):
        rows = stack(items)
    with report.phase("infer"):
        return run(rows)


def stack(items: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Like np.stack, which lets go of Python's lock for each item and then waits for it."""
    joined = b"".join([item.tobytes() for item in items])
    return np.frombuffer(joined, items[0].dtype).reshape(len(items), *items[0].shape)


def write_all(
    messages: Sequence[Message],
    requests: Sequence[Request | RequestError],
    results: Iterable[Any],
    write: Callable[[Request, Sequence[Any]], Reply],
    report: Report,
) -> list[Reply]:
    """Write one reply for each message, from that message's share of the batch's results."""
    left = iter(results)
    with report.phase("write"):
        return [
            error_reply(request, message.dialect)
            if isinstance(request, RequestError)
            else write_or_refuse(message, request, in_place(request.items, left), write)
            for message, request in zip(messages, requests, strict=True)
        ]


def write_or_refuse(
    message: Message,
    request: Request,
    rows: list[Any],
    write: Callable[[Request, Sequence[Any]], Reply],
) -> Reply:
    """Write a reply to a request; or its refusal, where the reply couldn't tell what failed.

    Args:
        message: that the request was read from.
        request: to answer.
        rows: the result for each item, or why there is none.
        write: makes the reply; takes None in the place of what failed.
    """
    if any(isinstance(row, RequestError) for row in rows):
        request = replace(request, items=rows)
        try:
            check_failures(request)
        except RequestError as error:
            return error_reply(error, message.dialect)
        rows = [None if isinstance(row, RequestError) else row for row in rows]
    return within_limit(write(request, rows), message.dialect)


def read_or_error(message: Message, read: Callable[[Message], Request]) -> Request | RequestError:
    """Read a message; an error is returned, not raised, so that its neighbours go on."""
    try:
        return read(message)
    except RequestError as error:
        return without_frames(error)


def refusals(requests: Sequence[Request | RequestError]) -> Iterator[RequestError]:
    """Every refusal in a batch: of a whole request, or of a single item."""
    for request in requests:
        if isinstance(request, RequestError):
            yield request
        else:
            yield from (item for item in request.items if isinstance(item, RequestError))


def readable_items(request: Request | RequestError) -> list[NDArray[Any]]:
    """The items of a request that could be read."""
    if isinstance(request, RequestError):
        return []
    return [item for item in request.items if not isinstance(item, RequestError)]


def in_place(items: Sequence[Item], results: Iterator[Any]) -> list[Any]:
    """The next result for each item that could be read, and why the others could not."""
    return [item if isinstance(item, RequestError) else next(results) for item in items]


def chunks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Cut ``rows`` into chunks of DECODED_AT_ONCE."""
    starts = range(0, len(rows), DECODED_AT_ONCE)
    return (rows[start : start + DECODED_AT_ONCE] for start in starts)
