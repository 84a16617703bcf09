"""Call a pinhole service from Python."""

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Self, overload

import numpy as np
import requests
from numpy.typing import ArrayLike, NDArray

from pinhole.answers import (
    EMBEDDING,
    RECONSTRUCTION,
    SCORE,
    WITH_SEEN,
    Answer,
    Embedding,
    Form,
    Health,
    Reconstruction,
    Score,
    all_or_raise,
    expecting_contract,
    naming,
    read_health,
    read_rows,
    refuse_failed_rows,
    single,
)
from pinhole.errors import BadRequest, ServerError
from pinhole.images import File, Image, Images, Item, Pixels, is_array, is_single, read_images
from pinhole.limits import Limits, ask_in_rounds, cut, read_limits, too_large
from pinhole.tensors import NPY, pack
from pinhole.transport import NO_HEADERS, Transport

FILE = "application/octet-stream"
JSON = "application/json"
PNG = "image/png"
FILE_FAULTS = ("InvalidImage", "PayloadTooLarge")  # Refusals of a file, not of a whole request.

Models = set[tuple[str, str]]  # the (digest, precision) of each model

# The smallest PNG there is: one grey pixel. Every model embeds it if it is stretched, so it proves
# that a service works.
PROBE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


class Client:
    """A connection to one service; threads and forked processes may share it.

    An image is a file (a path, its bytes, a file opened in binary mode, a Pillow image), of any
    size and colours, or an array of the model's own size: uint8[H, W], uint8[C, H, W] or
    uint8[H, W, C] with C = 1 or 3. Arrays are numpy's, or another library's that numpy reads, such
    as torch tensors. Many images are uint8[N, C, H, W], or a sequence or iterator of any of these;
    they are read as they are sent, in requests that keep to the service's limits.

    Args:
        url: e.g. ``http://127.0.0.1:8080``.
        api_key: sent as a bearer token; needed where the gateway has a key. Without a key, a user
            and password in the URL are sent as Basic authentication.
        timeout_s: longest wait for a connection, and for each answer.

    Attributes:
        models: (digest, precision) of every model that has answered about images so far.

    Raises:
        ValueError: the URL is no web address, or the key or the time-out can't be used.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout_s: float = 10) -> None:
        self._transport = Transport(url, api_key, timeout_s)
        self._published: Limits | None = None
        self.models = Models()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The service's address, without credentials."""
        return self._transport.url

    def close(self) -> None:
        """Close the connections that this process has kept."""
        self._transport.close()

    def embed(self, images: Images) -> NDArray[np.float32]:
        """Return the embedding of each image.

        Args:
            images: one image, or many.

        Returns:
            float32[D] for one image, float32[N, D] for many.

        Raises:
            BadRequest: the service refused an image (4xx). Never retried.
            Unauthorized: the API key is missing or wrong.
            Busy: still 429 or 503 after every retry.
            ServerError: the service failed (5xx), two models have answered requests of this call,
                or what answers is no pinhole service.
            Unavailable: no answer within ``timeout_s``, or none after every retry.
            TypeError, ValueError: an argument is no image.
            OSError: a path can't be read.
        """
        answers = self.embed_each(images)
        if is_single(images):
            return single(answers)
        rows = all_or_raise(answers)
        return np.stack(rows) if rows else np.empty((0, self.health().embedding_width), np.float32)

    def embed_each(self, images: Images) -> Iterator[Embedding | BadRequest]:
        """Embed images of which some may be broken, and more than fit into memory.

        Yields:
            float32[D] for each image in order, or the refusal of that image.

        Raises:
            As embed, except for refusals of single images.
        """
        return self._ask_in_chunks(images, self._embed_chunk)

    def try_embed(self, images: Images) -> list[Embedding | BadRequest]:
        """Everything that embed_each yields, as a list."""
        return list(self.embed_each(images))

    # The order of the overloads matters: a str is also an Iterable[str], and an array an iterable
    # of arrays.
    @overload
    def reconstruct(  # type: ignore[overload-overlap]
        self, images: File, seen: bool = False
    ) -> Reconstruction: ...
    @overload
    def reconstruct(  # type: ignore[overload-overlap]
        self, images: Pixels, seen: bool = False
    ) -> Reconstruction | list[Reconstruction]: ...
    @overload
    def reconstruct(self, images: Iterable[Image], seen: bool = False) -> list[Reconstruction]: ...

    def reconstruct(
        self, images: Images, seen: bool = False
    ) -> Reconstruction | list[Reconstruction]:
        """Return what the model remembers of each image, and how unusual the image is.

        Args:
            images: one image, or many.
            seen: whether to return also what the model saw of each file.

        Returns:
            A reconstruction for one image, a list of reconstructions for many.

        Raises:
            As embed.
        """
        answers = self.reconstruct_each(images, seen)
        return single(answers) if is_single(images) else all_or_raise(answers)

    def reconstruct_each(
        self, images: Images, seen: bool = False
    ) -> Iterator[Reconstruction | BadRequest]:
        """Reconstruct images of which some may be broken, and more than fit into memory.

        Yields:
            What the model remembers of each image in order, or the refusal of that image.

        Raises:
            As embed, except for refusals of single images.
        """
        form, headers = (WITH_SEEN, {"X-Seen": "true"}) if seen else (RECONSTRUCTION, NO_HEADERS)
        return self._ask_in_chunks(images, partial(self._rebuild, form, headers))

    def score_each(self, images: Images) -> Iterator[Score | BadRequest]:
        """Embed and score images in one request, of which some may be broken.

        Yields:
            The embedding and the scores of each image in order, or the refusal of that image.

        Raises:
            As embed, except for refusals of single images.
        """
        ask = partial(self._rebuild, SCORE, {"X-Pictures": "false"})
        return self._ask_in_chunks(images, ask)

    def decode(self, embeddings: ArrayLike) -> NDArray[np.uint8]:
        """Return the image of each embedding.

        Args:
            embeddings: [D] for one embedding, [N, D] for many.

        Returns:
            uint8[C, H, W] for one embedding, uint8[N, C, H, W] for many.

        Raises:
            As embed.
        """
        array = to_embeddings(embeddings)
        rows = np.atleast_2d(array)
        limits = self._limits() if len(rows) > 1 else Limits()
        step = limits.rows_of(rows[:1].nbytes)
        starts = range(0, max(1, len(rows)), step)
        models = Models()
        chunks = [self._decode_chunk(rows[at : at + step], at, models) for at in starts]
        images: Pixels = np.concatenate(chunks)
        return images if array.ndim == 2 else images.reshape(images.shape[1:])

    def decode_png(self, embeddings: ArrayLike) -> bytes:
        """Return one PNG file: the image of [D] or [1, D], or the images of [N, D] in a grid.

        Raises:
            As embed.
        """
        body = pack(np.atleast_2d(to_embeddings(embeddings)))
        reply = self._post(Models(), "decode", body, NPY, PNG)
        refuse_failed_rows(reply)
        return reply.content

    def health(self) -> Health:
        """Prove that the service embeds, by having it embed a picture of one pixel.

        Raises:
            As embed.
        """
        started = time.perf_counter()
        reply = self._transport.post(
            "/predictions/embed", PROBE, PNG, JSON, {"X-Framing": "stretch"}
        )
        latency_ms = (time.perf_counter() - started) * 1_000
        return read_health(reply, latency_ms)

    def _limits(self) -> Limits:
        """The limits that the service publishes, asked for once; without any, the contract's.

        A cached_property would ask under a lock that all clients share, in Python 3.11.
        """
        if self._published is None:
            try:
                with expecting_contract():
                    self._published = read_limits(self._transport.get("/v2/models/embed").json())
            except (BadRequest, ServerError):
                self._published = Limits()
        return self._published

    def _ask_in_chunks(
        self, images: Images, ask: Callable[[Models, list[Item]], list[Answer | BadRequest]]
    ) -> Iterator[Answer | BadRequest]:
        """Ask one model about every image, as many at a time as fit into a request."""
        limits, first = Limits() if is_single(images) else self._limits(), 0
        ask_one = partial(ask, Models())
        # All images of one array are refused for the same reason, so that none is named.
        several = not (is_single(images) or is_array(images))
        for chunk in cut(read_images(images), limits):
            refusal = too_large(chunk[0], limits)
            with naming(range(first, first + len(chunk))) if several else nullcontext():
                answers = [refusal] if refusal else ask_in_rounds(chunk, ask_one)
            yield from answers
            first += len(chunk)

    def _embed_chunk(self, models: Models, chunk: list[Item]) -> list[Embedding | BadRequest]:
        """Embed a chunk in one request."""
        files = [item for item in chunk if isinstance(item, bytes)]
        if files:
            return self._ask_about_files(models, "embed", files, EMBEDDING)
        reply = self._post(models, "embed", pack(np.stack(chunk)), NPY, NPY)
        return list(read_rows(reply, len(chunk)))

    def _rebuild(
        self, form: Form[Answer], headers: Mapping[str, str], models: Models, chunk: list[Item]
    ) -> list[Answer | BadRequest]:
        """Reconstruct or score a chunk in one request.

        The answer is JSON, because an array has no place for the anomaly score.
        """
        files = [item for item in chunk if isinstance(item, bytes)]
        if files:
            return self._ask_about_files(models, "reconstruct", files, form, headers)
        reply = self._post(models, "reconstruct", pack(np.stack(chunk)), NPY, headers=headers)
        return form.read_many(reply, len(chunk))

    def _ask_about_files(
        self,
        models: Models,
        endpoint: str,
        files: Sequence[bytes],
        form: Form[Answer],
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> list[Answer | BadRequest]:
        """Send one request: a single file as it is, or several as JSON, where each can fail alone.

        A multipart form could carry several files too, in three quarters of the bytes. But
        TorchServe takes a third longer to read a form of small files, and as long for photographs.
        """
        if len(files) > 1:
            reply = self._post(models, endpoint, envelope(files), JSON, headers=headers)
            return form.read_many(reply, len(files))
        try:
            return [form.read_one(self._post(models, endpoint, files[0], FILE, headers=headers))]
        except BadRequest as error:
            if error.type not in FILE_FAULTS:
                raise
            return [error]

    def _decode_chunk(self, embeddings: Embedding, first: int, models: Models) -> Pixels:
        """Decode rows in one request; ``first`` is the number of the first of them."""
        places = range(first, first + len(embeddings))
        with naming(places, "row") if first else nullcontext():
            reply = self._post(models, "decode", pack(embeddings), NPY, NPY)
        images: Pixels = read_rows(reply, len(embeddings), first)
        return images

    def _post(
        self,
        models: Models,
        endpoint: str,
        body: bytes,
        content_type: str,
        accept: str = JSON,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> requests.Response:
        """Send one of the requests of a call, whose others ``models`` have answered so far.

        Raises:
            ServerError: another model has answered this one: their embeddings don't go together.
        """
        path = f"/predictions/{endpoint}"
        reply = self._transport.post(path, body, content_type, accept, headers)
        named = (reply.headers.get(name, "") for name in ("X-Model-Digest", "X-Precision"))
        model = (next(named), next(named))
        self.models.add(model)
        models.add(model)
        if len(models) > 1:
            raise ServerError("two models, or precisions, have answered this call: call again")
        return reply


def to_embeddings(embeddings: ArrayLike) -> Embedding:
    """Numbers as float32[D] or float32[N, D].

    Raises:
        ValueError: they have another number of axes.
    """
    # A number too large for float32 becomes infinity, which the service refuses.
    with np.errstate(over="ignore"):
        array = np.asarray(embeddings, np.float32)
    if array.ndim not in (1, 2):
        raise ValueError(f"embeddings are [D] or [N, D]; these are {list(array.shape)}")
    return array


def envelope(files: Iterable[bytes]) -> bytes:
    """``{"images": ["<base64 file>", ...]}``, without a JSON encoder: base64 needs no escaping."""
    return b'{"images":["' + b'","'.join(map(base64.b64encode, files)) + b'"]}'
