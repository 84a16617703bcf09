"""The runner that embeds at a service: several requests in flight, fewer when it is busy.

A service that is busy or gone is waited for; the job ends when it has answered nothing for
``patience_s``. A request that the service itself fails on is cut in two, down to the guilty file.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pinhole.client import Client
from pinhole.errors import BadRequest, Busy, PinholeError, ServerError, Unavailable
from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.rows import Answer
from pinhole.jobs.runners import CHUNK_IMAGES, Model, Prepared

T = TypeVar("T")

MOST_IN_FLIGHT = 8  # requests
FIRST_IN_FLIGHT = 4
LARGEST_IN_COMPANY = 11 << 20  # of a file; base64 makes 14.7 MiB of it, a request has 16
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
REFUSALS = (400, 413, 415)  # of what was sent; any other 4xx is of the service's own making

PATIENCE_S = 300.0
QUIET_S = 3.0  # of an illness that the user isn't told of


class Flight:
    """How many requests may be in flight: a little more after each answer, half after a refusal."""

    def __init__(self) -> None:
        self._limit = float(FIRST_IN_FLIGHT)
        self._flying = 0
        self._free = threading.Condition()

    def __enter__(self) -> None:
        """Wait until one more may fly."""
        with self._free:
            self._free.wait_for(lambda: self._flying < max(1, int(self._limit)))
            self._flying += 1

    def __exit__(self, *_: object) -> None:
        """Let another one fly."""
        with self._free:
            self._flying -= 1
            self._free.notify_all()

    def answered(self) -> None:
        """Allow one more once as many as are allowed now were answered."""
        with self._free:
            self._limit = min(MOST_IN_FLIGHT, self._limit + 1 / self._limit)
            self._free.notify_all()

    def refused(self) -> None:
        """Allow half as many."""
        with self._free:
            self._limit = max(1.0, self._limit / 2)


class ServiceRunner:
    """A service over HTTP; see Runner.

    Args:
        client: of the service.
        tell: shows a line to the user.
        patience_s: how long a service may answer nothing before the job ends.
        score: ask for each image's mse too.

    Raises:
        PinholeError: no service there.
    """

    threads = MOST_IN_FLIGHT
    chunk_images = CHUNK_IMAGES

    def __init__(
        self,
        client: Client,
        tell: Callable[[str], None],
        patience_s: float = PATIENCE_S,
        score: bool = False,
    ) -> None:
        self._client, self._tell, self._patience_s, self._score = client, tell, patience_s, score
        health = client.health()
        self.name = "service"
        if not (health.digest and health.precision):
            raise JobError(
                "the service doesn't say which model it embeds with (X-Model-Digest, X-Precision): "
                "is there a proxy that drops headers?"
            )
        self.model = Model(health.digest, health.precision, health.embedding_width)
        self._flight, self._stop, self._lock = Flight(), threading.Event(), threading.Lock()
        self._ill_since: float | None = None
        self._told = False  # the user, of that

    def prepare(self, content: Prepared) -> Prepared | Fault:
        """What goes to the service is the content itself."""
        return content

    def embed(self, images: Sequence[Prepared | Fault]) -> list[Answer | Fault]:
        """One answer for each file, or for each array of pixels."""
        if isinstance(images[0], np.ndarray):
            return self._embed_pixels(images)
        return self._embed_files([image for image in images if isinstance(image, bytes)])

    def confirm(self) -> None:
        """Ask for the model once more: a service can be given another at any time."""
        health = self._ask(self._client.health)
        if (health.digest, health.precision) != (self.model.digest, self.model.precision):
            raise JobError(
                f"the service now embeds with model {health.digest[:12]} in {health.precision}; "
                f"the job began with {self.model.digest[:12]} in {self.model.precision}: the "
                "finished shards are whole, what came after is thrown away"
            )

    def stop(self) -> None:
        """See Runner."""
        self._stop.set()

    def _embed_pixels(self, images: Sequence[Prepared | Fault]) -> list[Answer | Fault]:
        """Pixels travel as one array."""
        array = np.stack([np.asarray(image) for image in images])
        try:
            embeddings = self._ask(lambda: self._client.embed(array))
            scores = self._ask(lambda: self._client.try_score(array)) if self._score else None
        except BadRequest as error:
            raise JobError(f"the service refuses the source's arrays: {error}") from error
        return [merge(row, scores[i] if scores else None) for i, row in enumerate(embeddings)]

    def _embed_files(self, files: list[bytes]) -> list[Answer | Fault]:
        """Files travel together, as far as they fit and none of them spoils it."""
        if len(files) == 1:
            return [self._embed_alone(files[0])]
        if sum(map(len, files)) > LARGEST_IN_COMPANY:
            return self._in_halves(files)
        try:
            answers = self._ask(lambda: self._client.try_embed(files))
            scores = self._ask(lambda: self._client.try_score(files)) if self._score else None
        except (BadRequest, ServerError):
            return self._in_halves(files)
        return [
            self._embed_alone(file)
            if isinstance(answer, BadRequest) and answer.type == "PayloadTooLarge"
            else merge(answer, scores[i] if scores else None)
            for i, (file, answer) in enumerate(zip(files, answers, strict=True))
        ]

    def _in_halves(self, files: list[bytes]) -> list[Answer | Fault]:
        """Two smaller requests."""
        middle = len(files) // 2
        return self._embed_files(files[:middle]) + self._embed_files(files[middle:])

    def _embed_alone(self, file: bytes) -> Answer | Fault:
        """One file as it is, without base64: as large as a request may be."""
        try:
            embedding = self._ask(lambda: self._client.embed(file))
            mse = self._ask(lambda: self._client.reconstruct(file)).mse if self._score else None
        except BadRequest as error:
            return Fault(error.type, str(error))
        except ServerError as error:
            return Fault("ServerError", str(error))
        return Answer(embedding, mse)

    def _ask(self, request: Callable[[], T]) -> T:
        """Send a request until the service has answered it.

        Raises:
            BadRequest: it is refused.
            ServerError: the service failed on it twice and is well otherwise.
            PinholeError: the service is ill for longer than ``patience_s``.
        """
        pause_s, failed = FIRST_PAUSE_S, False
        while True:
            try:
                with self._flight:
                    answer = request()
            except (Busy, Unavailable) as error:
                self._wait_out(error, pause_s)
            except BadRequest as error:
                if error.status in REFUSALS:
                    self._has_answered()
                    raise
                self._wait_out(error, pause_s)
            except ServerError as error:
                if failed and self._is_well():
                    raise
                failed = True
                self._wait_out(error, pause_s)
            else:
                self._has_answered()
                return answer
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    def _is_well(self) -> bool:
        """Whether the service embeds one pixel."""
        try:
            self._client.health()
        except PinholeError:
            return False
        return True

    def _has_answered(self) -> None:
        """Note that the service is well."""
        self._flight.answered()
        with self._lock:
            if self._told:
                self._tell(f"the service answers again, after {self._ill_for():.0f} s")
            self._ill_since, self._told = None, False

    def _wait_out(self, error: PinholeError, pause_s: float) -> None:
        """Wait a little; raise the error if it has been too long, or the job is being stopped."""
        self._flight.refused()
        with self._lock:
            if self._ill_since is None:
                self._ill_since = time.monotonic()
            if self._ill_for() > self._patience_s:
                raise error
            if not self._told and self._ill_for() > QUIET_S:
                self._tell(f"{error}; waiting for it, {self._patience_s:.0f} s at most")
                self._told = True
        if self._stop.wait(pause_s):
            raise error

    def _ill_for(self) -> float:
        """Seconds since the first of the refusals that no answer has followed yet."""
        return 0.0 if self._ill_since is None else time.monotonic() - self._ill_since


def merge(
    embedding: NDArray[np.float32] | BadRequest, mse: float | BadRequest | None
) -> Answer | Fault:
    """What two endpoints say of one image."""
    for answer in (embedding, mse):
        if isinstance(answer, BadRequest):
            return Fault(answer.type, str(answer))
    return Answer(np.asarray(embedding), mse if isinstance(mse, float) else None)
