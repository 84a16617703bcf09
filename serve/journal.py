"""Log every batch with a failure, and now and then a batch without."""

import logging
import time
from collections.abc import Callable, Sequence

from serve.service import PHASE_NAMES, Report
from serve.wire.message import CANARY_HEADER, Message, trace_of
from serve.wire.replies import Reply

logger = logging.getLogger(__name__)

SAMPLE_EVERY_S = 10.0  # between lines about batches without a failure

Count = Callable[[Report, Sequence[Reply]], None]


def is_routine(messages: Sequence[Message], replies: Sequence[Reply], token: str | None) -> bool:
    """Whether these were the launcher's canaries alone, and all came back with a 200.

    Args:
        messages: of a batch.
        replies: to them.
        token: what the launcher's canaries carry; None where no launcher sends canaries.
    """
    return token is not None and all(
        message.headers.get(CANARY_HEADER.lower()) == token and reply.status == 200
        for message, reply in zip(messages, replies, strict=True)
    )


class Journal:
    """The log and the metrics of one endpoint in this process.

    Args:
        endpoint: a name in serve.endpoints.ENDPOINTS.
        count: adds a batch to the metrics; None where nobody reads metrics.
        canary_token: what the launcher's canaries carry; None where no launcher sends canaries.
            Routine canaries are neither counted nor logged.
    """

    def __init__(
        self, endpoint: str, count: Count | None = None, canary_token: str | None = None
    ) -> None:
        self._endpoint, self._count, self._canary_token = endpoint, count, canary_token
        self._last_told = -SAMPLE_EVERY_S
        self._untold = 0  # batches since the last line

    def tell(
        self,
        report: Report,
        messages: Sequence[Message],
        replies: Sequence[Reply],
        request_ids: Sequence[str],
    ) -> None:
        """Count a batch; log it if anything failed, or if the last line is SAMPLE_EVERY_S old."""
        if is_routine(messages, replies, self._canary_token):
            return
        if self._count:
            self._count(report, replies)
        failed = any(reply.status >= 400 for reply in replies) or bool(report.bad)
        if not failed and time.monotonic() - self._last_told < SAMPLE_EVERY_S:
            self._untold += 1
            return
        self._last_told = time.monotonic()
        traces = [trace for message in messages if (trace := trace_of(message.headers))]
        logger.log(
            logging.WARNING if failed else logging.INFO,
            "batch endpoint=%s requests=%d images=%d bad=%s outliers=%d %s untold=%d replies=%s%s",
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
            f" traces={','.join(traces)}" if traces else "",
        )
        self._untold = 0
