"""Call a pinhole service from Python.

Retries are safe because every call of the contract is idempotent: connection errors, 429 and 503
are tried again after a growing, jittered pause; other answers, and a time-out, are final.
"""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import requests
from numpy.typing import ArrayLike, NDArray
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import ReadTimeoutError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

from pinhole.errors import BadRequest, Busy, PinholeError, ServerError, Unauthorized, Unavailable
from pinhole.tensors import NPY, pack, unpack

ImageFile = str | Path | bytes  # a path, or a file's content
FILE = "application/octet-stream"
PNG = "image/png"

RETRIES = 4
PAUSE_S = 0.2  # before the second try; doubled for each further one
JITTER_S = 0.2  # at random on top, so that callers refused together don't return together
LONGEST_PAUSE_S = 5.0
CONNECTIONS = 32  # kept open, for as many threads

# The smallest PNG there is: one grey pixel. Any model embeds it, so it proves a service works.
PROBE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Reconstruction:
    """What the model remembers of one image.

    Attributes:
        png: the picture, as a PNG file.
        mse: mean squared error per pixel, pixels in [0, 1].
        percentile: share of known images, in percent, that were reconstructed better.
        outlier: the image looks like nothing the model has learned.
    """

    png: bytes
    mse: float
    percentile: float
    outlier: bool


@dataclass(frozen=True)
class Health:
    """A service that has just embedded an image.

    Attributes:
        digest: of the model; equal digests mean equal embeddings.
        version: of the model.
        precision: of its arithmetic.
        embedding_width: D.
        latency_ms: of the embedding, the connection included.
    """

    digest: str
    version: str
    precision: str
    embedding_width: int
    latency_ms: float


class Client:
    """A connection to one service; threads may share it.

    Args:
        url: e.g. ``http://127.0.0.1:8080``.
        api_key: sent as a bearer token, where the gateway wants one.
        timeout_s: longest wait for a connection, and for each answer.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout_s: float = 10) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        if api_key:
            self._session.headers["Authorization"] = f"Bearer {api_key}"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, retrying_adapter())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connections."""
        self._session.close()

    def embed(
        self, images: ImageFile | Sequence[ImageFile] | NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Return the embedding of each image.

        Args:
            images: one image file (a path or its bytes), a sequence of them, or an array
                uint8[N, C, H, W] of the model's own size.

        Returns:
            float32[D] for one file, float32[N, D] for a sequence or an array.

        Raises:
            BadRequest: the service refused an image (4xx). Never retried.
            Unauthorized: the API key is missing or wrong.
            Busy: still 429 or 503 after every retry.
            ServerError: the service failed (5xx).
            Unavailable: no answer within ``timeout_s``, after every retry.
            OSError: a path can't be read.
        """
        if isinstance(images, np.ndarray):
            return self._array("embed", images)
        if isinstance(images, (str, Path, bytes)):
            (embedding,) = self._json("embed", read(images), FILE, fields=["embedding"])
            return np.array(embedding, np.float32)
        rows = self.try_embed(images)
        for index, row in enumerate(rows):
            if isinstance(row, BadRequest):
                raise BadRequest(f"image {index}: {row}", row.status, row.type)
        return np.array(rows, np.float32)

    def try_embed(self, images: Sequence[ImageFile]) -> list[NDArray[np.float32] | BadRequest]:
        """Embed files of which some may be broken: an embedding or the refusal for each, in order.

        One request carries them all: keep their sizes within the service's limits.

        Raises:
            As embed, bar refusals of single images.
        """
        fields = ["embeddings", "errors"]
        embeddings, errors = self._json("embed", envelope(images), "application/json", fields)
        rows: list[NDArray[np.float32] | BadRequest] = [
            np.array(row or [], np.float32) for row in embeddings
        ]
        for error in errors:
            rows[error["index"]] = BadRequest(error["message"], 400, error["type"])
        return rows

    def reconstruct(self, image: ImageFile) -> Reconstruction:
        """Return what the model remembers of an image file, and how unusual the image is.

        Raises:
            As embed.
        """
        fields = ["reconstruction", "mse", "anomaly"]
        picture, mse, anomaly = self._json("reconstruct", read(image), FILE, fields)
        return Reconstruction(base64.b64decode(picture), mse, **anomaly)

    def decode(self, embeddings: ArrayLike) -> NDArray[np.uint8]:
        """Return the image of each embedding: [N, D] → uint8[N, C, H, W].

        Raises:
            As embed.
        """
        return self._array("decode", np.asarray(embeddings, np.float32))

    def decode_png(self, embeddings: ArrayLike) -> bytes:
        """Return one PNG file: the image of [1, D], or the images of [N, D] in a grid.

        Raises:
            As embed.
        """
        body = pack(np.asarray(embeddings, np.float32))
        return self._post("decode", body, NPY, PNG).content

    def try_score(
        self, images: Sequence[ImageFile] | NDArray[np.uint8]
    ) -> list[float | BadRequest]:
        """Return each image's mse, of files of which some may be broken or of uint8[N, C, H, W].

        One request carries them all: keep their sizes within the service's limits.

        Raises:
            As embed, bar refusals of single files.
        """
        if isinstance(images, np.ndarray):
            reply = self._post("reconstruct", pack(images), NPY, NPY)
            return [float(mse) for mse in reply.headers["X-Mse"].split(",")]
        body = envelope(images)
        scores, errors = self._json("reconstruct", body, "application/json", ["mse", "errors"])
        rows: list[float | BadRequest] = list(scores)
        for error in errors:
            rows[error["index"]] = BadRequest(error["message"], 400, error["type"])
        return rows

    def health(self) -> Health:
        """Prove that the service embeds, by having it embed a picture of one pixel.

        Raises:
            As embed.
        """
        started = time.perf_counter()
        reply = self._post("embed", PROBE, PNG)
        latency_ms = (time.perf_counter() - started) * 1_000
        return Health(
            digest=reply.headers.get("X-Model-Digest", ""),
            version=reply.headers.get("X-Model-Version", ""),
            precision=reply.headers.get("X-Precision", ""),
            embedding_width=len(parse(reply, ["embedding"])[0]),
            latency_ms=latency_ms,
        )

    def _array(self, endpoint: str, array: NDArray[Any]) -> NDArray[Any]:
        """POST an array, get one back; a failed row is an error."""
        reply = self._post(endpoint, pack(array), NPY, NPY)
        if failures := reply.headers.get("X-Errors"):
            raise BadRequest(f"the service refused rows {failures}")
        try:
            return unpack(reply.content)
        except ValueError as error:
            raise ServerError("the service's answer is not an array") from error

    def _json(self, endpoint: str, body: bytes, content_type: str, fields: list[str]) -> list[Any]:
        """POST a body, get the named fields of the JSON that comes back."""
        return parse(self._post(endpoint, body, content_type), fields)

    def _post(
        self, endpoint: str, body: bytes, content_type: str, accept: str = "application/json"
    ) -> requests.Response:
        """POST to an endpoint; anything but a 200 is raised."""
        try:
            reply = self._session.post(
                f"{self._url}/predictions/{endpoint}",
                data=body,
                headers={"Content-Type": content_type, "Accept": accept},
                timeout=self._timeout_s,
            )
        except requests.RequestException as error:
            raise Unavailable(f"no answer from {self._url}: {type(error).__name__}") from error
        if reply.status_code != 200:
            raise refusal(reply)
        return reply


class Patience(Retry):
    """Try again, but not what was given up on for lack of time: it may still be running there."""

    def increment(  # noqa: D102 - urllib3's own
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


def retrying_adapter() -> HTTPAdapter:
    """Keep connections open and try again where that is safe and useful."""
    retry = Patience(
        total=RETRIES,
        status_forcelist=(429, 503),
        allowed_methods=None,  # POST too: every call is idempotent
        backoff_factor=PAUSE_S,
        backoff_jitter=JITTER_S,
        backoff_max=LONGEST_PAUSE_S,
        retry_after_max=int(LONGEST_PAUSE_S),
        raise_on_status=False,
    )
    return HTTPAdapter(pool_connections=1, pool_maxsize=CONNECTIONS, max_retries=retry)


def read(image: ImageFile) -> bytes:
    """The content of a file, whichever way it was given."""
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def envelope(images: Sequence[ImageFile]) -> bytes:
    """``{"images": ["<base64 file>", ...]}``, joined by hand: base64 needs no escaping."""
    files = b'","'.join(base64.b64encode(read(image)) for image in images)
    return b'{"images":["' + files + b'"]}' if images else b'{"images":[]}'


def parse(reply: requests.Response, fields: list[str]) -> list[Any]:
    """The named fields of a reply's JSON.

    Raises:
        ServerError: it isn't JSON, or has no such fields: something else answers there.
    """
    try:
        answer = reply.json()
        return [answer[field] for field in fields]
    except (requests.JSONDecodeError, LookupError, TypeError) as error:
        raise ServerError("the answer is not that of a pinhole service") from error


def refusal(reply: requests.Response) -> PinholeError:
    """The exception that a reply other than 200 becomes."""
    try:
        fields = reply.json()
        message, kind = str(fields["message"]), str(fields["type"])
    except (requests.JSONDecodeError, KeyError, TypeError):
        message, kind = f"HTTP {reply.status_code}", "Unknown"
    if reply.status_code == 401:
        return Unauthorized(message)
    if reply.status_code in (429, 503):
        return Busy(message)
    if reply.status_code < 500:
        return BadRequest(message, reply.status_code, kind)
    return ServerError(message)
