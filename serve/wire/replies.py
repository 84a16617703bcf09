"""Write HTTP replies in the form that the request had: one object, or lists and their errors."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serve.bundle.errors import PayloadTooLarge, RequestError
from serve.bundle.images import read_whole, write_grid, write_png
from serve.bundle.limits import MAX_REPLY_BYTES
from serve.bundle.score import PERCENTILE_DIGITS
from serve.errors import InvalidRequest
from serve.wire.media import JSON, NPY, PNG
from serve.wire.message import Dialect
from serve.wire.npy import write_npy
from serve.wire.oip import HEADER_LENGTH, write_oip
from serve.wire.openai import write_openai
from serve.wire.requests import Item, Request

BINARY = "application/octet-stream"
NO_HEADERS: Mapping[str, str] = {}
STRIP_PX = 224  # side that the pictures of a strip are enlarged to, by a whole factor
NOTHING = "the request holds no images or embeddings"


@dataclass(frozen=True)
class Reply:
    """One HTTP response.

    Attributes:
        body: the bytes after the headers.
        status: e.g. 200.
        content_type: of the body.
        headers: further headers.
    """

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reconstruction:
    """What the model remembers of one image.

    Attributes:
        seen: uint8[C, H, W], the image itself, as it was cut out of its file.
        pixels: uint8[C, H, W].
        mse: mean squared error per pixel, pixels in [0, 1].
        percentile: share of held-out images, in percent, that were reconstructed better.
        outlier: the image looks like nothing the model has learned.
        embedding: float32[D].
        outside: the embedding is outside the range of held-out images, so the image is an outlier.
    """

    seen: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    mse: float
    percentile: float
    outlier: bool
    embedding: NDArray[np.float32]
    outside: bool


def embed_reply(
    request: Request, embeddings: Sequence[NDArray[np.float32] | None], width: int
) -> Reply:
    """``{"embedding": [x, y]}`` or ``{"embeddings": [[x, y], null], "errors": [...]}``.

    Args:
        request: to answer.
        embeddings: float32[D] each, None where an item failed.
        width: D.
    """
    if request.oip is not None:
        return oip_reply(request, "embed", {"embeddings": embeddings})
    if request.openai is not None:
        whole = [row for row in embeddings if row is not None]  # a failure has failed the request
        return Reply(write_openai(request.openai, whole))
    if request.reply_type == NPY:
        return npy_reply(request, embeddings, np.full(width, np.nan, np.float32))
    if request.singular:
        return json_reply({"embedding": embeddings[0]})
    return json_reply({"embeddings": embeddings, "errors": item_errors(request.items)})


def reconstruct_reply(
    request: Request, answers: Sequence[Reconstruction | None], shape: tuple[int, ...]
) -> Reply:
    """Pictures with their mse and anomaly score, or one PNG where that was asked for.

    Args:
        request: to answer.
        answers: None where an item failed.
        shape: (C, H, W).
    """
    blank = np.zeros(shape, np.uint8)
    images = [None if answer is None else answer.pixels for answer in answers]
    if request.oip is not None:
        mse = [np.float32(answer.mse) for answer in answers if answer]
        return oip_reply(request, "reconstruct", {"reconstructions": images, "mse": mse})
    if request.seen and request.reply_type == PNG:
        return strip_reply(request, answers, blank)
    if request.reply_type == PNG:
        return png_reply(request, images, blank)
    if request.seen and request.reply_type == NPY:
        images = [None if each is None else np.stack((each.seen, each.pixels)) for each in answers]
        blank = np.stack((blank, blank))
    if request.reply_type == NPY:
        return npy_reply(request, images, blank, scores(answers))
    if not request.pictures:
        rows = [answer and describe_score(answer) for answer in answers]
        fields = {"embedding": "embeddings", "mse": "mse", "anomaly": "anomaly"}
    else:
        rows = [answer and describe(answer, request.seen) for answer in answers]
        fields = {"reconstruction": "reconstructions", "mse": "mse", "anomaly": "anomaly"}
        fields |= {"seen": "seen"} if request.seen else {}
    if request.singular:
        return json_reply(rows[0])
    lists = {name: [row and row[field] for row in rows] for field, name in fields.items()}
    return json_reply({**lists, "errors": item_errors(request.items)})


def strip_reply(
    request: Request, answers: Sequence[Reconstruction | None], blank: NDArray[np.uint8]
) -> Reply:
    """One picture: sent | seen | remembered of one file; seen | remembered of each of several.

    Args:
        request: to answer.
        answers: None where an item failed.
        blank: uint8[C, H, W], in the place of what failed.
    """
    strips = [None if each is None else side_by_side(each.seen, each.pixels) for each in answers]
    if request.file is None or strips[0] is None:
        return png_reply(request, strips, side_by_side(blank, blank))
    factor = max(1, STRIP_PX // max(blank.shape))
    strip = strips[0].repeat(factor, axis=1).repeat(factor, axis=2)
    channels, height, width = blank.shape
    sent = read_whole(request.file, (channels, factor * height, factor * width))
    return Reply(write_png(side_by_side(sent, strip)), content_type=PNG)


def side_by_side(*images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[C, H, W] each → one uint8[C, H, N * W]."""
    return np.concatenate(images, axis=-1)


def scores(answers: Sequence[Reconstruction | None]) -> dict[str, str]:
    """X-Mse, X-Percentile, and X-Outlier-Indices where there are outliers: headers of an array."""
    errors = [round_trip(answer.mse) if answer else math.nan for answer in answers]
    ranks = [round(answer.percentile, 1) if answer else math.nan for answer in answers]
    outliers = [index for index, answer in enumerate(answers) if answer and answer.outlier]
    told: dict[str, Sequence[float]] = {
        "X-Mse": errors,
        "X-Percentile": ranks,
        "X-Outlier-Indices": outliers,
    }
    return {name: ",".join(map(str, values)) for name, values in told.items() if values}


def describe(answer: Reconstruction, with_seen: bool) -> dict[str, Any]:
    """One reconstruction as JSON."""
    seen = {"seen": base64_png(answer.seen)} if with_seen else {}
    return {
        **seen,
        "reconstruction": base64_png(answer.pixels),
        "mse": np.float32(answer.mse),
        "anomaly": {"percentile": round(answer.percentile, 1), "outlier": answer.outlier},
    }


def describe_score(answer: Reconstruction) -> dict[str, Any]:
    """One reconstruction as JSON without pictures."""
    anomaly = {
        "percentile": round(answer.percentile, PERCENTILE_DIGITS),
        "outlier": answer.outlier,
        "outside": answer.outside,
    }
    return {"embedding": answer.embedding, "mse": np.float32(answer.mse), "anomaly": anomaly}


def decode_reply(
    request: Request, images: Sequence[NDArray[np.uint8] | None], shape: tuple[int, ...]
) -> Reply:
    """``{"images": ["<base64 PNG>", null], "errors": [...]}``, one PNG or one array.

    Args:
        request: to answer.
        images: uint8[C, H, W] each, None where an item failed.
        shape: (C, H, W).
    """
    blank = np.zeros(shape, np.uint8)
    if request.oip is not None:
        return oip_reply(request, "decode", {"images": images})
    if request.reply_type == PNG:
        return png_reply(request, images, blank)
    if request.reply_type == NPY:
        return npy_reply(request, images, blank)
    pictures = [None if pixels is None else base64_png(pixels) for pixels in images]
    return json_reply({"images": pictures, "errors": item_errors(request.items)})


def png_reply(
    request: Request, images: Sequence[NDArray[np.uint8] | None], blank: NDArray[np.uint8]
) -> Reply:
    """One picture: the image itself, or many in one grid, black where an item failed."""
    if not images:
        return error_reply(InvalidRequest(NOTHING))
    grid = np.stack([blank if pixels is None else pixels for pixels in images])
    picture = write_png(grid[0]) if len(grid) == 1 else write_grid(grid)
    return Reply(picture, content_type=PNG, headers=failures(request.items))


def npy_reply(
    request: Request,
    rows: Sequence[NDArray[Any] | None],
    blank: NDArray[Any],
    headers: Mapping[str, str] = NO_HEADERS,
) -> Reply:
    """One array, ``blank`` where an item failed."""
    array = np.empty((len(rows), *blank.shape), blank.dtype)
    for index, row in enumerate(rows):
        array[index] = blank if row is None else row
    told = {**headers, **failures(request.items)}
    return Reply(write_npy(array), content_type=NPY, headers=told)


def failures(items: Sequence[Item]) -> dict[str, str]:
    """The headers X-Failed-Indices and X-First-Failure, if anything failed."""
    failed = {str(at): str(item) for at, item in enumerate(items) if isinstance(item, RequestError)}
    if not failed:
        return {}
    why = next(iter(failed.values())).encode("ascii", "replace").decode()
    return {"X-Failed-Indices": ",".join(failed), "X-First-Failure": why}


def oip_reply(request: Request, model: str, rows: Mapping[str, Sequence[Any]]) -> Reply:
    """Named tensors, in JSON or raw after the JSON. No item of an OIP request has failed here."""
    if request.oip is None or not request.items:
        return error_reply(InvalidRequest(NOTHING), "oip")
    body, head = write_oip(request.oip, model, {name: np.stack(row) for name, row in rows.items()})
    if head is None:
        return Reply(body)
    return Reply(body, content_type=BINARY, headers={HEADER_LENGTH.title(): str(head)})


def error_reply(error: RequestError, dialect: Dialect = "own") -> Reply:
    """An error with its status, in the form that the caller understands."""
    return refusal(error.status, type(error).__name__, str(error), dialect)


def refusal(status: int, kind: str, message: str, dialect: Dialect = "own") -> Reply:
    """An error of a server, in the form that the caller understands."""
    blame = "invalid_request_error" if status < 500 else "server_error"  # OpenAI's words
    body = {
        "own": {"code": status, "type": kind, "message": message},
        "oip": {"error": message},
        "openai": {"error": {"message": message, "type": blame, "param": None, "code": kind}},
    }[dialect]
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    return Reply(json.dumps(body).encode(), status, headers=headers)


def within_limit(reply: Reply, dialect: Dialect) -> Reply:
    """The reply, or a 413 in its place where its body is over MAX_REPLY_BYTES.

    TorchServe kills a worker whose reply is larger than it allows.
    """
    if len(reply.body) <= MAX_REPLY_BYTES:
        return reply
    message = (
        f"the reply would have {len(reply.body):,} bytes; the limit is {MAX_REPLY_BYTES:,}: "
        "ask for fewer images"
    )
    return error_reply(PayloadTooLarge(message), dialect)


def item_errors(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The failures within a plural request: ``{"index", "type", "message"}`` each."""
    return [
        {"index": index, "type": type(item).__name__, "message": str(item)}
        for index, item in enumerate(items)
        if isinstance(item, RequestError)
    ]


def json_reply(body: Any) -> Reply:
    """A 200 with a JSON body. A float32 is written as the shortest decimal that reads back."""
    return Reply(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


def base64_png(pixels: NDArray[np.uint8]) -> str:
    """uint8[C, H, W] → a PNG file in base64."""
    return base64.b64encode(write_png(pixels)).decode()


def round_trip(number: float | np.float32) -> float:
    """The shortest decimal that reads back as the same float32: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(number)))
