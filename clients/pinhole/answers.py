"""Reads a service's replies: a value or a refusal for each image, in order.

A reply that doesn't have the contract's form becomes a ServerError: what answers at that address is
no pinhole service.
"""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import requests
from numpy.typing import NDArray

from pinhole.errors import BadRequest, ServerError
from pinhole.tensors import unpack

Embedding: TypeAlias = NDArray[np.float32]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Reconstruction:
    """What the model remembers of one image.

    Attributes:
        png: the reconstructed picture, as a PNG file.
        mse: mean squared error per pixel, pixels in [0, 1].
        percentile: share of known images, in percent, that were reconstructed better.
        outlier: whether the image looks like nothing the model has learned.
        seen: what the model saw of the image, as a PNG file, where that was asked for.
    """

    png: bytes
    mse: float
    percentile: float
    outlier: bool
    seen: bytes | None = None


@dataclass(frozen=True)
class Score:
    """Where an image lies, and how well the model knows it.

    Attributes:
        embedding: float32[D].
        mse: mean squared error per pixel, pixels in [0, 1].
        percentile: share of known images, in percent, that were reconstructed better.
        outlier: whether the image looks like nothing the model has learned.
        outside: whether the embedding is outside the range of known images, which makes it an
            outlier.
    """

    embedding: Embedding
    mse: float
    percentile: float
    outlier: bool
    outside: bool


@dataclass(frozen=True)
class Health:
    """A service that has just embedded an image.

    Attributes:
        digest: sha256 that names the model; equal digests mean equal embeddings.
        version: of the model.
        precision: of the model's arithmetic, e.g. ``fp32``.
        embedding_width: D.
        latency_ms: time that the embedding took, the connection included.
    """

    digest: str
    version: str
    precision: str
    embedding_width: int
    latency_ms: float


@contextmanager
def expecting_contract() -> Iterator[None]:
    """Turn the exceptions that reading a reply of another form raises into a ServerError."""
    try:
        yield
    except (requests.JSONDecodeError, LookupError, TypeError, ValueError) as error:
        raise ServerError("the answer is not that of a pinhole service") from error


def read_rows(reply: requests.Response, count: int, first: int = 0) -> NDArray[Any]:
    """The array in a reply.

    Args:
        reply: with a .npy file as its body.
        count: number of rows that the array has to have.
        first: number of the first row, for the message of a refusal.

    Raises:
        BadRequest: the service refused some of the rows.
        ServerError: the body is no such array.
    """
    refuse_failed_rows(reply, first)
    try:
        array = unpack(reply.content)
    except ValueError as error:
        raise ServerError("the service's answer is not an array") from error
    if array.shape[:1] != (count,):
        raise ServerError(f"the service's answer is {list(array.shape)} for {count:,} rows")
    return array


def refuse_failed_rows(reply: requests.Response, first: int = 0) -> None:
    """Raise if some rows of an array, or some pictures of a grid, stand for nothing.

    Args:
        reply: whose body is an array or a grid.
        first: number of the first row, for the message.

    Raises:
        BadRequest: the service refused some of the rows.
        ServerError: the header isn't a list of indices.
    """
    if failures := reply.headers.get("X-Failed-Indices"):
        with expecting_contract():
            rows = [str(first + int(index)) for index in failures.split(",")]
        why = reply.headers.get("X-First-Failure", "the service doesn't say why")
        raise BadRequest(f"the service refused rows {', '.join(rows)}; row {rows[0]}: {why}")


def read_health(reply: requests.Response, latency_ms: float) -> Health:
    """What the reply to one file says of the service."""
    return Health(
        digest=reply.headers.get("X-Model-Digest", ""),
        version=reply.headers.get("X-Model-Version", ""),
        precision=reply.headers.get("X-Precision", ""),
        embedding_width=len(EMBEDDING.read_one(reply)),
        latency_ms=latency_ms,
    )


def merge_errors(
    rows: list[Any], errors: list[Any], read: Callable[[Any], Answer], count: int
) -> list[Answer | BadRequest]:
    """Each row read; where the reply has an error for a row, the refusal is in its place."""
    refused = {
        error["index"]: BadRequest(str(error["message"]), 400, str(error["type"]))
        for error in errors
    }
    if len(rows) != count:
        raise ValueError("an answer has a row for each image")
    return [refused.get(index) or read(row) for index, row in enumerate(rows)]


def to_embedding(numbers: Any) -> Embedding:
    """A JSON list as float32[D]."""
    embedding = np.array(numbers, np.float32)
    if embedding.ndim != 1:
        raise ValueError("an embedding is a list of numbers")
    return embedding


def to_reconstruction(picture: Any, mse: Any, anomaly: Any, seen: Any = None) -> Reconstruction:
    """The base64 PNG, mse, anomaly and what was seen of one image."""
    return Reconstruction(
        png=base64.b64decode(picture, validate=True),
        mse=float(mse),
        percentile=float(anomaly["percentile"]),
        outlier=bool(anomaly["outlier"]),
        seen=None if seen is None else base64.b64decode(seen, validate=True),
    )


def to_score(embedding: Any, mse: Any, anomaly: Any) -> Score:
    """The embedding, mse and anomaly of one image."""
    return Score(
        embedding=to_embedding(embedding),
        mse=float(mse),
        percentile=float(anomaly["percentile"]),
        outlier=bool(anomaly["outlier"]),
        outside=bool(anomaly["outside"]),
    )


@dataclass(frozen=True)
class Form(Generic[Answer]):
    """How a reply tells of an image.

    Attributes:
        read: makes the answer of the fields.
        one: their names in the reply to one file.
        many: their names in the reply to several images, where each is a list.
    """

    read: Callable[..., Answer]
    one: tuple[str, ...]
    many: tuple[str, ...]

    def read_one(self, reply: requests.Response) -> Answer:
        """The answer in the reply to one file."""
        with expecting_contract():
            fields = reply.json()
            return self.read(*(fields[name] for name in self.one))

    def read_many(self, reply: requests.Response, count: int) -> list[Answer | BadRequest]:
        """The answers, or refusals, in the reply to several images."""
        with expecting_contract():
            fields = reply.json()
            rows = list(zip(*(fields[name] for name in self.many), strict=True))
            return merge_errors(rows, fields["errors"], lambda row: self.read(*row), count)


EMBEDDING = Form(to_embedding, ("embedding",), ("embeddings",))
SCORE = Form(to_score, ("embedding", "mse", "anomaly"), ("embeddings", "mse", "anomaly"))
RECONSTRUCTION = Form(
    to_reconstruction, ("reconstruction", "mse", "anomaly"), ("reconstructions", "mse", "anomaly")
)
WITH_SEEN = replace(
    RECONSTRUCTION, one=(*RECONSTRUCTION.one, "seen"), many=(*RECONSTRUCTION.many, "seen")
)


@contextmanager
def naming(places: range, noun: str = "image") -> Iterator[None]:
    """Name the images of a request that is refused as a whole, by their places in the call."""
    try:
        yield
    except BadRequest as error:
        if error.status != 400:
            raise  # A 404, for example, isn't about the images.
        many = f"{noun}s {places[0]} to {places[-1]}"
        name = many if len(places) > 1 else f"{noun} {places[0]}"
        raise BadRequest(f"{name}: {error}", error.status, error.type) from error


def single(answers: Iterator[Answer | BadRequest]) -> Answer:
    """The answer about a single image.

    Raises:
        BadRequest: the answer is a refusal.
    """
    (answer,) = answers
    if isinstance(answer, BadRequest):
        raise answer
    return answer


def all_or_raise(answers: Iterator[Answer | BadRequest]) -> list[Answer]:
    """All answers, if no image was refused.

    Raises:
        BadRequest: the first refusal, with the image's index.
    """
    found = list[Answer]()
    for index, answer in enumerate(answers):
        if isinstance(answer, BadRequest):
            raise BadRequest(f"image {index}: {answer}", answer.status, answer.type)
        found.append(answer)
    return found
