"""The runner that embeds at a service: several requests in flight, fewer when it is busy.

It waits for a service that is busy or unreachable; the job ends when the service has answered
nothing for ``patience_s``. A request on which the service itself fails, or which it doesn't answer
in time, is cut in two, and again, until the image that makes it fail is found.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import requests
from numpy.typing import NDArray

from pinhole.answers import Score
from pinhole.client import Client
from pinhole.errors import BadRequest, Busy, PinholeError, ServerError, Unavailable
from pinhole.images import Images
from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.rows import Answer
from pinhole.jobs.runners import CHUNK_IMAGES, Model, Prepared
from pinhole.transport import ran_out_of_time
from serve.bundle.manifest import ImageSpec

T = TypeVar("T")

MOST_IN_FLIGHT = 8  # Requests.
FIRST_IN_FLIGHT = 4

NAMELESS = (
    "the service doesn't say which model it embeds with (X-Model-Digest, X-Precision): is there a "
    "proxy that drops headers?"
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0

# Statuses by which the service refuses what was sent. Any other 4xx says nothing of the images: a
# 404, for example, comes while the service is given another model.
REFUSALS = (400, 413, 415)

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


class Late(Exception):
    """A request that wasn't answered in time, and is better sent in parts; or a single image's."""


class ServiceRunner:
    """A service over HTTP; see Runner.

    Args:
        client: of the service.
        tell: shows a line to the user.
        patience_s: how long a service may answer nothing before the job ends.
        score: ask for each image's scores too; see Identity.
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
        patience_s: float,
        score: float = 0,
        image_of: Callable[[str], ImageSpec | None] = lambda digest: None,
    ) -> None:
        self._client, self._tell, self._patience_s, self._score = client, tell, patience_s, score
        health = client.health()
        if not (health.digest and health.precision):
            raise JobError(NAMELESS)
        image = image_of(health.digest)
        self.model = Model(health.digest, health.precision, health.embedding_width, image)
        self._flight, self._stop, self._lock = Flight(), threading.Event(), threading.Lock()
        self._down_since: float | None = None
        self._outage_told = False
        # The most images in a request: one more after each answer, half after one that was late.
        self._most = CHUNK_IMAGES

    def prepare(self, content: Prepared) -> Prepared | Fault:
        """Return the content itself: the service reads files."""
        return content

    def embed(self, images: Sequence[Prepared | Fault]) -> list[Answer | Fault]:
        """One answer for each file, or for each array of pixels."""
        rest = [image for image in images if not isinstance(image, Fault)]
        answers = list[Answer | Fault]()
        while rest:
            some, rest = rest[: self._most], rest[self._most :]
            answers += self._embed_together(some)
        return answers

    def confirm(self) -> None:
        """Check by which models the requests so far were answered.

        A service can be given another model at any time.
        """
        for digest, precision in self._client.models - {(self.model.digest, self.model.precision)}:
            if not (digest and precision):
                raise JobError(NAMELESS)
            raise JobError(
                f"the service now embeds with model {digest[:12]} in {precision}; "
                f"the job began with {self.model.digest[:12]} in {self.model.precision}: the "
                "finished shards are whole, what came after is thrown away"
            )

    def stop(self) -> None:
        """See Runner."""
        self._stop.set()

    def _embed_together(self, images: list[Prepared]) -> list[Answer | Fault]:
        """Embed images in one request, or in several where one request can't carry them."""
        try:
            return self._embed_at_once(images)
        except (BadRequest, Late, ServerError) as error:
            if isinstance(error, BadRequest) and isinstance(images[0], np.ndarray):
                raise JobError(f"the service refuses the source's arrays: {error}") from error
            if len(images) == 1:
                name = type(error).__name__
                return [Fault(getattr(error, "type", name), str(error))]
            if isinstance(error, Late):
                self._most = max(1, min(self._most, len(images) // 2))
        middle = len(images) // 2
        return self.embed(images[:middle]) + self.embed(images[middle:])

    def _embed_at_once(self, images: list[Prepared]) -> list[Answer | Fault]:
        """Embed pixels, which are sent as one array, or files.

        A single file is sent without base64: it may be as large as a request may be.
        """
        files = [image for image in images if isinstance(image, bytes)]
        each = self._client.score_each if self._score else self._client.embed_each
        alone = len(images) == 1
        given: Images = files[0] if files and alone else files
        if not files:
            given = np.stack([np.asarray(image) for image in images])
        answers = self._ask_until_answered(lambda: list(each(given)), alone)
        return [self._to_answer(answer) for answer in answers]

    def _to_answer(self, found: NDArray[np.float32] | Score | BadRequest) -> Answer | Fault:
        """What the service says of one image; above the percentile ``score`` it is an outlier."""
        if isinstance(found, BadRequest):
            return Fault(found.type, str(found))
        embedding = found.embedding if isinstance(found, Score) else found
        if embedding.shape != (self.model.width,) or not np.isfinite(embedding).all():
            return Fault(
                "ServerError",
                f"the service's answer isn't an embedding of {self.model.width} finite numbers",
            )
        if not isinstance(found, Score):
            return Answer(embedding)
        outlier = found.outside or found.percentile > self._score
        return Answer(embedding, found.mse, found.percentile, outlier)

    def _ask_until_answered(self, request: Callable[[], T], alone: bool) -> T:
        """Send a request until the service has answered it.

        Args:
            request: sends it.
            alone: whether it has a single image, so that it can't be cut.

        Raises:
            BadRequest: the service refuses it.
            Late: the service hasn't answered it in time, once, or if it is of a single image twice
                and is healthy otherwise.
            ServerError: the service has failed on it twice, and is healthy otherwise.
            PinholeError: the service has answered nothing for ``patience_s``.
        """
        pause_s, failed = FIRST_PAUSE_S, False
        while True:
            try:
                with self._flight:
                    answer = request()
            except BadRequest as error:
                if error.status in REFUSALS:
                    self._note_answer()
                    raise
                self._pause_or_give_up(error, pause_s)
            except (Busy, Unavailable, ServerError) as error:
                late, broken = is_late(error), isinstance(error, ServerError)
                if failed and (late or broken) and self._is_healthy():
                    if late:
                        raise Late(str(error)) from error
                    raise
                self._pause_or_give_up(error, 0 if late else pause_s)
                if late and not alone:
                    raise Late(str(error)) from error
                failed = failed or late or broken
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
            self._most = min(CHUNK_IMAGES, self._most + 1)
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


def is_late(error: PinholeError) -> bool:
    """Whether a service that was reached hasn't answered in time."""
    cause = error.__cause__
    if cause is None or isinstance(cause, requests.ConnectTimeout):
        return False
    return ran_out_of_time(cause)
