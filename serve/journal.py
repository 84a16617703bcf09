"""What is told of each batch: one log line, and what serve.metrics counts."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from serve.wire.replies import Reply

logger = logging.getLogger(__name__)

PHASE_NAMES = ("read", "infer", "write")
SAMPLE_EVERY_S = 10.0  # between lines about successes; failures are always told


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


Count = Callable[[Report, Sequence[Reply]], None]


class Journal:
    """Tells of one endpoint's batches in this worker.

    Args:
        endpoint: of serve.bundle.ENDPOINTS.
        count: adds a batch to the metrics, where anybody reads them.
    """

    def __init__(self, endpoint: str, count: Count | None = None) -> None:
        self._endpoint, self._count = endpoint, count
        self._last_told = -SAMPLE_EVERY_S
        self._untold = 0  # batches since then

    def tell(self, report: Report, replies: Sequence[Reply], request_ids: Sequence[str]) -> None:
        """Count a batch; log it if anything failed, or if it is a while since the last line."""
        if self._count:
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
