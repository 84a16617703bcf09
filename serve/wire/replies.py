"""Answers → HTTP replies, in the form the request had: one object, or lists with errors beside."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.errors import InvalidRequest, RequestError
from serve.images import write_grid, write_png
from serve.wire.npy import write_npy
from serve.wire.oip import HEADER_LENGTH, write_oip
from serve.wire.requests import JSON, NPY, PNG, Item, Request

BINARY = "application/octet-stream"
NOTHING = "the request holds no images or embeddings"


@dataclass(frozen=True)
class Reply:
    """One HTTP response.

    Attributes:
        body: the bytes after the headers.
        status: e.g. 200.
        phrase: for the status line, ASCII.
        content_type: of the body.
        headers: others to send.
    """

    body: bytes
    status: int = 200
    phrase: str = "OK"
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reconstruction:
    """What the model remembers of one image.

    Attributes:
        pixels: uint8[C, H, W].
        mse: mean squared error per pixel, pixels in [0, 1].
        percentile: share of held-out images, in percent, that were reconstructed better.
        outlier: the image looks like nothing the model has learned.
    """

    pixels: NDArray[np.uint8]
    mse: float
    percentile: float
    outlier: bool


def embed_reply(request: Request, embeddings: Sequence[NDArray[np.float32] | None]) -> Reply:
    """``{"embedding": [x, y]}`` or ``{"embeddings": [[x, y], null], "errors": [...]}``."""
    if request.oip is not None:
        return oip_reply(request, "embed", {"embeddings": embeddings})
    if request.reply_type == NPY:
        return npy_reply(embeddings, request.items)
    rows = [None if row is None else [round_trip(x) for x in row] for row in embeddings]
    if request.singular:
        return json_reply({"embedding": rows[0]})
    return json_reply({"embeddings": rows, "errors": item_errors(request.items)})


def reconstruct_reply(request: Request, answers: Sequence[Reconstruction | None]) -> Reply:
    """Pictures with their mse and anomaly score, or one PNG where that was asked for."""
    images = [None if answer is None else answer.pixels for answer in answers]
    if request.oip is not None:
        mse = [np.float32(answer.mse) for answer in answers if answer]
        return oip_reply(request, "reconstruct", {"reconstructions": images, "mse": mse})
    if request.reply_type == PNG:
        return png_reply(images, request.items)
    if request.reply_type == NPY:
        errors = [round_trip(answer.mse) if answer else math.nan for answer in answers]
        return npy_reply(images, request.items, {"X-Mse": ",".join(map(str, errors))})
    rows = [answer and describe(answer) for answer in answers]
    if request.singular:
        return json_reply(rows[0])
    return json_reply(
        {
            "reconstructions": [row and row["reconstruction"] for row in rows],
            "mse": [row and row["mse"] for row in rows],
            "anomaly": [row and row["anomaly"] for row in rows],
            "errors": item_errors(request.items),
        }
    )


def describe(answer: Reconstruction) -> dict[str, Any]:
    """One reconstruction as JSON."""
    return {
        "reconstruction": base64_png(answer.pixels),
        "mse": round_trip(answer.mse),
        "anomaly": {"percentile": round(answer.percentile, 1), "outlier": answer.outlier},
    }


def decode_reply(request: Request, images: Sequence[NDArray[np.uint8] | None]) -> Reply:
    """``{"images": ["<base64 PNG>", null], "errors": [...]}``, one PNG or one array."""
    if request.oip is not None:
        return oip_reply(request, "decode", {"images": images})
    if request.reply_type == PNG:
        return png_reply(images, request.items)
    if request.reply_type == NPY:
        return npy_reply(images, request.items)
    pictures = [None if pixels is None else base64_png(pixels) for pixels in images]
    return json_reply({"images": pictures, "errors": item_errors(request.items)})


def png_reply(images: Sequence[NDArray[np.uint8] | None], items: Sequence[Item]) -> Reply:
    """One picture: the image itself, or many in one grid, black where an item failed.

    Nothing but failures has no picture: the first failure is the answer.
    """
    found = [pixels for pixels in images if pixels is not None]
    if not found:
        return no_answer(items)
    if len(images) == 1:
        return Reply(write_png(found[0]), content_type=PNG)
    blank = np.zeros_like(found[0])
    grid = np.stack([blank if pixels is None else pixels for pixels in images])
    return Reply(write_grid(grid), content_type=PNG)


def npy_reply(
    rows: Sequence[NDArray[Any] | None],
    items: Sequence[Item],
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One array; where an item failed, NaN or black, with its index in X-Errors.

    Nothing but failures has no shape: the first failure is the answer.
    """
    found = [row for row in rows if row is not None]
    if not found:
        return no_answer(items)
    blank = np.full_like(found[0], np.nan if found[0].dtype == np.float32 else 0)
    array = np.stack([blank if row is None else row for row in rows])
    failures = [str(index) for index, row in enumerate(rows) if row is None]
    marks = {"X-Errors": ",".join(failures)} if failures else {}
    return Reply(write_npy(array), content_type=NPY, headers={**(headers or {}), **marks})


def oip_reply(request: Request, model: str, rows: Mapping[str, Sequence[Any]]) -> Reply:
    """Named tensors, in JSON or raw after it; none of an OIP request's items has failed."""
    if request.oip is None or not request.items:
        return error_reply(InvalidRequest(NOTHING), oip=True)
    tensors = {name: np.stack(row) for name, row in rows.items()}
    try:
        body, head = write_oip(request.oip, model, tensors)
    except RequestError as error:
        return error_reply(error, oip=True)
    if head is None:
        return Reply(body)
    return Reply(body, content_type=BINARY, headers={HEADER_LENGTH.title(): str(head)})


def no_answer(items: Sequence[Item]) -> Reply:
    """What a picture or an array of nothing becomes: the first failure."""
    first = next((item for item in items if isinstance(item, RequestError)), None)
    return error_reply(first or InvalidRequest(NOTHING))


def error_reply(error: RequestError, oip: bool = False) -> Reply:
    """``{"code", "type", "message"}`` with the error's status; ``{"error"}`` in OIP."""
    body: dict[str, Any] = {"code": error.status, "type": type(error).__name__}
    body = {"error": str(error)} if oip else {**body, "message": str(error)}
    return Reply(json.dumps(body).encode(), status=error.status, phrase=error.phrase)


def item_errors(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The failures within a plural request: ``{"index", "type", "message"}`` each."""
    return [
        {"index": index, "type": type(item).__name__, "message": str(item)}
        for index, item in enumerate(items)
        if isinstance(item, RequestError)
    ]


def json_reply(body: Any) -> Reply:
    """A 200 with a JSON body."""
    return Reply(json.dumps(body, separators=(",", ":")).encode())


def base64_png(pixels: NDArray[np.uint8]) -> str:
    """uint8[C, H, W] → a PNG file in base64."""
    return base64.b64encode(write_png(pixels)).decode()


def round_trip(number: float | np.float32) -> float:
    """The shortest decimal that reads back as the same float32: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(number)))
