"""What is told of each batch: one log line, and a handful of metrics.

Where the launcher has named a folder for them (PROMETHEUS_MULTIPROC_DIR), the metrics of all
workers add up there; elsewhere, as in a stock TorchServe, nobody reads them.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import prometheus_client

from serve.limits import MAX_IMAGES
from serve.wire.replies import Reply

logger = logging.getLogger(__name__)

PHASE_NAMES = ("read", "infer", "write")
SAMPLE_EVERY_S = 10.0  # between lines about successes; failures are always told
SIZES = [2**power for power in range(MAX_IMAGES.bit_length())]  # 1 to MAX_IMAGES
SECONDS = [0.0005 * 2**power for power in range(15)]  # half a millisecond to 8 seconds

REQUESTS = prometheus_client.Counter(
    "pinhole_requests", "requests answered by a worker", ["endpoint", "status"]
)
IMAGES = prometheus_client.Counter(
    "pinhole_images", "images or embeddings that went through the model", ["endpoint"]
)
BAD = prometheus_client.Counter(
    "pinhole_bad", "requests, images or embeddings that were refused", ["endpoint", "reason"]
)
OUTLIERS = prometheus_client.Counter(
    "pinhole_outliers", "images reconstructed that look like nothing the model has learned"
)
BATCH_REQUESTS = prometheus_client.Histogram(
    "pinhole_batch_requests", "requests answered together", ["endpoint"], buckets=SIZES
)
BATCH_IMAGES = prometheus_client.Histogram(
    "pinhole_batch_images", "images or embeddings of a batch", ["endpoint"], buckets=SIZES
)
PHASES = prometheus_client.Histogram(
    "pinhole_phase_seconds", "time a batch spent in a phase", ["endpoint", "phase"], buckets=SECONDS
)


@dataclass
class Report:
    """What one batch was, and what it cost.

    Attributes:
        images: images or embeddings that went through the model.
        bad: refusals by error type, of whole requests and of single images.
        outliers: among the images.
        seconds: by phase: read, infer, write.
    """

    images: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    outliers: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASE_NAMES, 0.0))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase; one within another is not counted twice."""
        before, started = sum(self.seconds.values()), time.perf_counter()
        try:
            yield
        finally:
            within = sum(self.seconds.values()) - before
            self.seconds[name] += time.perf_counter() - started - within


class Journal:
    """Tells of one endpoint's batches in this worker."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._images = IMAGES.labels(endpoint)
        self._batch_requests = BATCH_REQUESTS.labels(endpoint)
        self._batch_images = BATCH_IMAGES.labels(endpoint)
        self._phases = {name: PHASES.labels(endpoint, name) for name in PHASE_NAMES}
        self._last_told = -SAMPLE_EVERY_S
        self._untold = 0  # batches since then

    def tell(self, report: Report, replies: Sequence[Reply], request_ids: Sequence[str]) -> None:
        """Count a batch; log it if anything failed, or if it is a while since the last line."""
        self._count(report, replies)
        failed = any(reply.status >= 400 for reply in replies) or bool(report.bad)
        if not failed and time.monotonic() - self._last_told < SAMPLE_EVERY_S:
            self._untold += 1
            return
        self._last_told = time.monotonic()
        logger.log(
            logging.WARNING if failed else logging.INFO,
            "batch endpoint=%s requests=%d images=%d bad=%s outliers=%d %s untold=%d replies=%s",
            self._endpoint,
            len(replies),
            report.images,
            ",".join(f"{kind}:{count}" for kind, count in report.bad.items()) or "none",
            report.outliers,
            " ".join(f"{name}_ms={report.seconds[name] * 1e3:.1f}" for name in PHASE_NAMES),
            self._untold,
            ",".join(
                f"{id}:{reply.status}" for id, reply in zip(request_ids, replies, strict=True)
            ),
        )
        self._untold = 0

    def _count(self, report: Report, replies: Sequence[Reply]) -> None:
        for status, count in Counter(reply.status for reply in replies).items():
            REQUESTS.labels(self._endpoint, status).inc(count)
        for reason, count in report.bad.items():
            BAD.labels(self._endpoint, reason).inc(count)
        self._images.inc(report.images)
        if report.outliers:
            OUTLIERS.inc(report.outliers)
        self._batch_requests.observe(len(replies))
        self._batch_images.observe(report.images)
        for phase, seconds in report.seconds.items():
            self._phases[phase].observe(seconds)
