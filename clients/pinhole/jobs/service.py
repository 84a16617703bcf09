"""The runner that embeds at a service: several requests in flight, fewer when it is busy.

It waits for a service that is busy or unreachable; the job ends when the service has answered
nothing for ``patience_s``. A request on which the service itself fails is cut in two, and again,
until the file that makes it fail is found.
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
from serve.bundle.manifest import ImageSpec

T = TypeVar("T")

MOST_IN_FLIGHT = 8  # Requests.
FIRST_IN_FLIGHT = 4

# The most bytes of files that are sent in one request. In base64 they become 14.7 MiB; the service
# takes requests of 16 MiB.
LARGEST_TOGETHER = 11 << 20

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0

# Statuses by which the service refuses what was sent. Any other 4xx says nothing of the images: a
# 404, for example, comes while the service is given another model.
REFUSALS = (400, 413, 415)

PATIENCE_S = 300.0
QUIET_S = 3.0  # An outage shorter than this is retried without a message.


class Flight:
    """How many requests may be in flight: a little more after each answer, half after a refusal."""

    def __init__(self) -> None:
        self._limit = float(FIRST_IN_FLIGHT)
        self._flying = 0
        self._free = threading.Condition()

    def __enter__(self) -> None:
        """Wait until one more request may be sent."""
        with self._free:
            self._free.wait_for(lambda: self._flying < max(1, int(self._limit)))
            self._flying += 1

    def __exit__(self, *_: object) -> None:
        """Give the request's place to the next request."""
        with self._free:
            self._flying -= 1
            self._free.notify_all()

    def answered(self) -> None:
        """Raise the limit, by one request for every full round of answers."""
        with self._free:
            self._limit = min(MOST_IN_FLIGHT, self._limit + 1 / self._limit)
            self._free.notify_all()

    def refused(self) -> None:
        """Halve the limit."""
        with self._free:
            self._limit = max(1.0, self._limit / 2)


class ServiceRunner:
    """A service over HTTP; see Runner.

    Args:
        client: of the service.
        tell: shows a line to the user.
        patience_s: how long a service may answer nothing before the job ends.
        score: ask for each image's mse too.
        image_of: finds the pictures that the model of a digest takes; see find_image_spec.

    Raises:
        JobError: the service doesn't say which model it embeds with.
        PinholeError: the service can't be reached, or refuses to work.
    """

    name = "service"
    threads = MOST_IN_FLIGHT
    chunk_images = CHUNK_IMAGES

    def __init__(
        self,
        client: Client,
        tell: Callable[[str], None],
        patience_s: float = PATIENCE_S,
        score: bool = False,
        image_of: Callable[[str], ImageSpec | None] = lambda digest: None,
    ) -> None:
        self._client, self._tell, self._patience_s, self._score = client, tell, patience_s, score
        health = client.health()
        if not (health.digest and health.precision):
            raise JobError(
                "the service doesn't say which model it embeds with (X-Model-Digest, X-Precision): "
                "is there a proxy that drops headers?"
            )
        image = image_of(health.digest)
        self.model = Model(health.digest, health.precision, health.embedding_width, image)
        self._flight, self._stop, self._lock = Flight(), threading.Event(), threading.Lock()
        self._down_since: float | None = None
        self._outage_told = False

    def prepare(self, content: Prepared) -> Prepared | Fault:
        """Return the content itself: the service reads files."""
        return content

    def embed(self, images: Sequence[Prepared | Fault]) -> list[Answer | Fault]:
        """One answer for each file, or for each array of pixels."""
        if isinstance(images[0], np.ndarray):
            return self._embed_pixels(images)
        return self._embed_files([image for image in images if isinstance(image, bytes)])

    def confirm(self) -> None:
        """Ask for the model once more: a service can be given another model at any time."""
        health = self._ask_until_answered(self._client.health)
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
        """Embed pixels, sent as one array."""
        array = np.stack([np.asarray(image) for image in images])
        ask, client = self._ask_until_answered, self._client
        try:
            embeddings = ask(lambda: client.embed(array))
            scores = ask(lambda: client.try_score(array)) if self._score else None
        except BadRequest as error:
            raise JobError(f"the service refuses the source's arrays: {error}") from error
        return [merge(row, scores[i] if scores else None) for i, row in enumerate(embeddings)]

    def _embed_files(self, files: list[bytes]) -> list[Answer | Fault]:
        """Embed files in one request, or in several where one request can't carry them."""
        if len(files) == 1:
            return [self._embed_single_file(files[0])]
        if sum(map(len, files)) > LARGEST_TOGETHER:
            return self._embed_halves(files)
        ask, client = self._ask_until_answered, self._client
        try:
            answers = ask(lambda: client.try_embed(files))
            scores = ask(lambda: client.try_score(files)) if self._score else None
        except (BadRequest, ServerError):
            return self._embed_halves(files)
        return [
            self._embed_single_file(file)
            if isinstance(answer, BadRequest) and answer.type == "PayloadTooLarge"
            else merge(answer, scores[i] if scores else None)
            for i, (file, answer) in enumerate(zip(files, answers, strict=True))
        ]

    def _embed_halves(self, files: list[bytes]) -> list[Answer | Fault]:
        """Embed files in two smaller requests."""
        middle = len(files) // 2
        return self._embed_files(files[:middle]) + self._embed_files(files[middle:])

    def _embed_single_file(self, file: bytes) -> Answer | Fault:
        """Embed a file in a request of its own, without base64: as large as a request may be."""
        ask, client = self._ask_until_answered, self._client
        try:
            embedding = ask(lambda: client.embed(file))
            mse = ask(lambda: client.reconstruct(file)).mse if self._score else None
        except BadRequest as error:
            return Fault(error.type, str(error))
        except ServerError as error:
            return Fault("ServerError", str(error))
        return Answer(embedding, mse)

    def _ask_until_answered(self, request: Callable[[], T]) -> T:
        """Send a request until the service has answered it.

        Raises:
            BadRequest: the service refuses it.
            ServerError: the service has failed on it twice, and is healthy otherwise.
            PinholeError: the service has answered nothing for ``patience_s``.
        """
        pause_s, failed = FIRST_PAUSE_S, False
        while True:
            try:
                with self._flight:
                    answer = request()
            except (Busy, Unavailable) as error:
                self._pause_or_give_up(error, pause_s)
            except BadRequest as error:
                if error.status in REFUSALS:
                    self._note_answer()
                    raise
                self._pause_or_give_up(error, pause_s)
            except ServerError as error:
                if failed and self._is_healthy():
                    raise
                failed = True
                self._pause_or_give_up(error, pause_s)
            else:
                self._note_answer()
                return answer
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    def _is_healthy(self) -> bool:
        """Whether the service embeds a picture of one pixel."""
        try:
            self._client.health()
        except PinholeError:
            return False
        return True

    def _note_answer(self) -> None:
        """Note that the service answers; tell the user if an outage has ended."""
        self._flight.answered()
        with self._lock:
            if self._outage_told:
                self._tell(f"the service answers again, after {self._outage_s():.0f} s")
            self._down_since, self._outage_told = None, False

    def _pause_or_give_up(self, error: PinholeError, pause_s: float) -> None:
        """Pause; raise the error if the outage is too long, or the job is being stopped."""
        self._flight.refused()
        with self._lock:
            if self._down_since is None:
                self._down_since = time.monotonic()
            if self._outage_s() > self._patience_s:
                raise error
            if not self._outage_told and self._outage_s() > QUIET_S:
                self._tell(f"{error}; waiting for it, {self._patience_s:.0f} s at most")
                self._outage_told = True
        if self._stop.wait(pause_s):
            raise error

    def _outage_s(self) -> float:
        """Seconds since the first refusal after the newest answer."""
        return 0.0 if self._down_since is None else time.monotonic() - self._down_since


def merge(
    embedding: NDArray[np.float32] | BadRequest, mse: float | BadRequest | None
) -> Answer | Fault:
    """One answer from what two endpoints say of one image."""
    for answer in (embedding, mse):
        if isinstance(answer, BadRequest):
            return Fault(answer.type, str(answer))
    return Answer(np.asarray(embedding), mse if isinstance(mse, float) else None)
