"""Read requests into items for the engine: images, embeddings, or why an item can't be read.

The form of the request decides the form of the reply: one file is *singular*; a JSON envelope, a
multipart form and an array are *plural*, whatever the count; OIP and OpenAI's form are answered in
kind.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.bundle.errors import RequestError, without_frames
from serve.bundle.images import PixelBudget, read_image
from serve.bundle.limits import MAX_EMBEDDING, check_size
from serve.bundle.manifest import ImageSpec, Manifest
from serve.endpoints import Endpoint
from serve.errors import InvalidEmbedding, InvalidRequest, UnsupportedMediaType
from serve.wire.json_bodies import read_object, read_text
from serve.wire.media import JSON, MULTIPART, NPY, OPENAI, PNG
from serve.wire.message import (
    Message,
    asked_spec,
    check_body,
    form_files,
    is_asked_for,
    is_file_type,
)
from serve.wire.npy import read_npy
from serve.wire.oip import OipForm, read_oip
from serve.wire.openai import OpenAiForm, read_openai

Item = NDArray[np.uint8] | NDArray[np.float32] | RequestError


@dataclass(frozen=True)
class Request:
    """A request that could be read; single items may still have failed.

    Attributes:
        items: uint8[C, H, W] (images) or float32[D] (embeddings) each, or why it can't be read.
        singular: one file was sent, so the reply is one object.
        reply_type: JSON, PNG (a picture, where the endpoint makes pictures) or NPY (an array).
        oip: the form of the reply to a request in the Open Inference Protocol.
        openai: the form of the reply to a request in OpenAI's form.
        seen: a reconstruction is to be shown beside the image that the model saw.
        pictures: whether JSON has reconstructions; else it has embeddings in their place.
        file: the file itself, where it is to be shown beside them.
    """

    items: list[Item]
    singular: bool
    reply_type: str
    oip: OipForm | None = None
    openai: OpenAiForm | None = None
    seen: bool = False
    pictures: bool = True
    file: bytes | None = None


def read_image_request(message: Message, manifest: Manifest, endpoint: Endpoint) -> Request:
    """Read a request to embed or reconstruct.

    Args:
        message: as it arrived.
        manifest: of the model.
        endpoint: that it was sent to.

    Raises:
        RequestError: the request can't be read; or it is singular, and its file can't be read.
    """
    check_body(message)
    spec = asked_spec(message.headers, manifest.image)
    if message.oip:
        return read_oip_images(message, spec, endpoint.gives)
    if message.content_type == OPENAI and endpoint.name == "embed":
        return read_openai_images(message, spec, manifest)
    seen = is_asked_for(message.headers, "X-Seen", "false")
    pictures = is_asked_for(message.headers, "X-Pictures", "true")
    reply_type = message.reply_type(endpoint.replies)
    if is_file_type(message.content_type):
        file = message.body if seen and reply_type == PNG else None
        image = read_image(message.body, spec, PixelBudget())
        return Request([image], True, reply_type, seen=seen, pictures=pictures, file=file)
    items = list[Item]()
    if message.content_type == JSON:
        items += read_each(read_envelope(message.body, "images", spec.shape), spec)
    elif message.content_type == MULTIPART:
        parts = form_files(message)
        check_size(len(parts), spec.shape)
        if not parts:
            raise InvalidRequest(
                "the form holds no file, which is a part with a filename, or its Content-Type no "
                "boundary; with curl, -F i=@FILE"
            )
        items += read_each(parts, spec)
    elif message.content_type == NPY:
        items += to_images(read_npy(message.body), spec)
    else:
        raise UnsupportedMediaType(
            "this Content-Type is not read here; send one file as image/* or "
            "application/octet-stream, several as multipart/form-data or application/json "
            '{"images": ["<base64 file>", ...]}, or an array as application/x-npy'
        )
    return Request(items, False, reply_type, seen=seen, pictures=pictures)


def read_embedding_request(message: Message, manifest: Manifest, endpoint: Endpoint) -> Request:
    """Read a request to decode.

    Args:
        message: as it arrived.
        manifest: of the model.
        endpoint: that it was sent to.

    Raises:
        RequestError: the request can't be read.
    """
    check_body(message)
    if message.oip:
        return read_oip_embeddings(message, manifest, endpoint.gives)
    items, reply_type = list[Item](), message.reply_type(endpoint.replies)
    if message.content_type == JSON:
        vectors = read_envelope(message.body, "embeddings", manifest.image.shape)
        items += [read_embedding(vector, manifest.embedding_width) for vector in vectors]
    elif message.content_type == NPY:
        items += to_embeddings(read_npy(message.body), manifest)
    else:
        raise UnsupportedMediaType(
            "this Content-Type is not read here; send application/json "
            '{"embeddings": [[x, y], ...]} or an array as application/x-npy'
        )
    return Request(items, False, reply_type)


def check_failures(request: Request) -> None:
    """Raise where the reply has no place to say which items failed and why.

    A picture or an array of failures alone would hold nothing, and look like a success. JSON says
    of each item why it failed.

    Raises:
        RequestError: the first failure of a request in OIP or OpenAI's form; or how many items of
            a request for a picture or an array failed, if all did.
    """
    failed = [item for item in request.items if isinstance(item, RequestError)]
    if failed and (request.oip or request.openai):
        none_failed(request.items)
    if failed and len(failed) == len(request.items) and request.reply_type != JSON:
        count = f"{len(failed):,} of {len(failed):,} entries failed"
        raise type(failed[0])(f"{count}; entry 0: {failed[0]}")


def read_oip_images(message: Message, spec: ImageSpec, outputs: Sequence[str]) -> Request:
    """Read an OIP request to embed or reconstruct: files as BYTES, or an array as UINT8.

    Raises:
        RequestError: the request or one of its files can't be read.
    """
    form, tensor = read_oip(message.body, message.headers, "images", outputs)
    if isinstance(tensor, list):
        check_size(len(tensor), spec.shape)
        items = none_failed(read_each(tensor, spec))
    else:
        items = list[Item](to_images(tensor, spec))
    return Request(items, False, JSON, form)


def read_openai_images(message: Message, spec: ImageSpec, manifest: Manifest) -> Request:
    """Read a request to embed in OpenAI's form: files as text.

    Raises:
        RequestError: the request or one of its files can't be read.
    """
    form, texts = read_openai(message.body, manifest)
    check_size(len(texts), spec.shape)
    return Request(none_failed(read_each(texts, spec)), False, JSON, openai=form)


def read_oip_embeddings(message: Message, manifest: Manifest, outputs: Sequence[str]) -> Request:
    """Read an OIP request to decode: an array as FP32.

    Raises:
        RequestError: the request or one of its rows can't be read.
    """
    form, tensor = read_oip(message.body, message.headers, "embeddings", outputs)
    if isinstance(tensor, list):
        raise InvalidRequest("embeddings are FP32, not BYTES")
    items = none_failed(to_embeddings(tensor, manifest))
    return Request(items, False, JSON, form)


def none_failed(items: Iterable[Item]) -> list[Item]:
    """The items, if all could be read: others' protocols can't report that a single item failed.

    Raises:
        RequestError: the first failure, with its index.
    """
    found = list[Item]()
    for index, item in enumerate(items):
        if isinstance(item, RequestError):
            raise type(item)(f"entry {index}: {item}")
        found.append(item)
    return found


def read_envelope(body: bytes, key: str, shape: tuple[int, ...]) -> list[Any]:
    """Read ``{key: [...]}``, a list of what becomes images of some shape.

    Raises:
        InvalidRequest: the body isn't JSON, or isn't an object with that list.
        TooManyImages, PayloadTooLarge: the list is over the limits; see check_size.
    """
    rows = read_object(body).get(key)
    if not isinstance(rows, list):
        raise InvalidRequest(f'the JSON body must be an object with a list "{key}"')
    check_size(len(rows), shape)
    return rows


def to_images(array: NDArray[np.generic], spec: ImageSpec) -> list[NDArray[np.uint8]]:
    """Split uint8[N, C, H, W], or uint8[N, H, W] for a grey model, into images.

    Raises:
        InvalidRequest: the array has another type or shape.
        TooManyImages, PayloadTooLarge: N is over the limits; see check_size.
    """
    if array.ndim == 3 and spec.channels == 1:
        array = array[:, None]
    if array.dtype != np.uint8 or array.shape[1:] != spec.shape:
        raise InvalidRequest(
            f"images as an array are uint8[N, {', '.join(map(str, spec.shape))}]; "
            f"this one is {array.dtype}{list(array.shape)}"
        )
    check_size(len(array), spec.shape)
    return list(array.astype(np.uint8, copy=False))


def to_embeddings(
    array: NDArray[np.generic], manifest: Manifest
) -> list[NDArray[np.float32] | InvalidEmbedding]:
    """Split float32[N, D] into embeddings; a row out of range fails alone.

    Raises:
        InvalidRequest: the array has another type or shape.
        TooManyImages, PayloadTooLarge: N is over the limits; see check_size.
    """
    width = manifest.embedding_width
    if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != width:
        raise InvalidRequest(
            f"embeddings as an array are float32[N, {width}]; "
            f"this one is {array.dtype}{list(array.shape)}"
        )
    check_size(len(array), manifest.image.shape)
    rows = array.astype(np.float32, copy=False)
    return [row if fits(row) else out_of_range() for row in rows]


def fits(embedding: NDArray[np.float32]) -> bool:
    """Whether every number of float32[D] is within MAX_EMBEDDING; NaN is not."""
    return bool((np.abs(embedding) <= MAX_EMBEDDING).all())


def read_each(files: Iterable[Any], spec: ImageSpec) -> Iterator[NDArray[np.uint8] | RequestError]:
    """Read a request's images, each of them a file or what JSON has in its place.

    An error is yielded, so that the image's neighbours go on.
    """
    budget = PixelBudget()
    for file in files:
        try:
            yield read_image(file if isinstance(file, bytes) else read_text(file), spec, budget)
        except RequestError as error:
            yield without_frames(error)


def read_embedding(vector: Any, width: int) -> NDArray[np.float32] | InvalidEmbedding:
    """Read one entry of ``embeddings``; an error is returned, so that its neighbours go on."""
    if not isinstance(vector, list) or len(vector) != width or not all(map(is_number, vector)):
        return InvalidEmbedding(f"an embedding is a list of {width} numbers")
    if not all(abs(number) <= MAX_EMBEDDING for number in vector):  # False for NaN
        return out_of_range()
    return np.array(vector, np.float32)


def out_of_range() -> InvalidEmbedding:
    """The error of an embedding with a number that is NaN, infinite or huge."""
    return InvalidEmbedding(
        f"an embedding's numbers are finite, from -{MAX_EMBEDDING:g} to {MAX_EMBEDDING:g}"
    )


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number (``true`` is not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
