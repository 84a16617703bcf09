"""The metrics that workers count for Prometheus.

Where workers are processes, the launcher names a folder (PROMETHEUS_MULTIPROC_DIR) to which all of
them write their counts; it serves the sums (serve.launcher.metrics). In a stock TorchServe nobody
reads these counts, and prometheus_client may be missing: there this module isn't imported.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import prometheus_client

from serve.bundle.limits import MAX_IMAGES
from serve.service import PHASE_NAMES, Report
from serve.wire.replies import Reply

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
# A picture like those the model knows has any percentile with the same chance.
PERCENTILES = prometheus_client.Histogram(
    "pinhole_percentile",
    "percentiles of reconstructed images, of a sample of each batch",
    buckets=[*range(10, 100, 10), 95, 99, 100],
)
POSITIONS = prometheus_client.Histogram(
    "pinhole_position",
    "numbers of embeddings, of a sample of each batch; held-out images had 0 to 1",
    ["number"],
    buckets=[-1, -0.5, *(tenth / 10 for tenth in range(11)), 1.5, 2],
)
OUTSIDE = prometheus_client.Counter(
    "pinhole_outside", "embeddings of the same sample with a number that is not within 0 and 1"
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
WAITS = prometheus_client.Histogram(
    "pinhole_wait_seconds",
    "time from a request's arrival to the start of its batch, where the server tells it",
    ["endpoint"],
    buckets=SECONDS,
)


class Metrics:
    """The counts of one endpoint in this worker process."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._images = IMAGES.labels(endpoint)
        self._batch_requests = BATCH_REQUESTS.labels(endpoint)
        self._batch_images = BATCH_IMAGES.labels(endpoint)
        self._waits = WAITS.labels(endpoint)
        self._positions = list[prometheus_client.Histogram]()  # by number
        self._phases = {name: PHASES.labels(endpoint, name) for name in PHASE_NAMES}

    def count(self, report: Report, replies: Sequence[Reply]) -> None:
        """Add one batch."""
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
        for rank in report.percentiles:
            PERCENTILES.observe(rank)
        for row in report.positions:
            self._count_positions(row)

    def _count_positions(self, row: Sequence[float]) -> None:
        """Add the positions of an embedding's numbers."""
        while len(self._positions) < len(row):  # the model after a swap may have more numbers
            self._positions.append(POSITIONS.labels(len(self._positions)))
        for histogram, position in zip(self._positions, row, strict=False):
            histogram.observe(position)
        if min(row) < 0 or max(row) > 1:
            OUTSIDE.inc()

    def count_waits(self, waits_s: Iterable[float]) -> None:
        """Add the waits of a batch's requests."""
        for seconds in waits_s:
            self._waits.observe(seconds)
