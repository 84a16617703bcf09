"""An unexpected error harms the one request that causes it, and none of its neighbours."""

import logging
from collections.abc import Sequence

from serve.errors import InternalError
from serve.service import Operation, Report
from serve.wire.message import Message
from serve.wire.replies import Reply, error_reply

logger = logging.getLogger(__name__)


def reply_isolating_faults(
    operation: Operation,
    messages: Sequence[Message],
    request_ids: Sequence[str],
    report: Report,
) -> list[Reply]:
    """Reply to a batch; where that raises, reply to each of its messages alone.

    The message at fault gets a 500 with its request id, which is in the log line too. TorchServe
    itself would fail every request of the batch with a 503.
    """
    try:
        return operation(messages, report)
    except Exception:  # whatever it is, no request may harm its neighbours
        if len(messages) == 1:
            logger.exception("request %s failed", request_ids[0])
            report.bad[InternalError.__name__] += 1
            message = f"unexpected error; report request id {request_ids[0]}"
            return [error_reply(InternalError(message), messages[0].dialect)]
        logger.exception("a batch of %d failed; replying to its requests alone", len(messages))
    report.forget()  # each message is counted again below
    return [
        reply_isolating_faults(operation, [message], [request_id], report)[0]
        for message, request_id in zip(messages, request_ids, strict=True)
    ]
