"""One endpoint in one of TorchServe's worker processes: a dynamic batch → replies.

The road of a request, and what each step adds:

    Worker.handle_batch         rows become messages; light requests don't wait for heavy ones
    Worker._handle_part         statuses and headers go into TorchServe's context
    reply_isolating_faults      an unexpected error costs its own request alone (serve.isolation)
    Service.embed, …            read, run, write (serve.service)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from serve.endpoints import ENDPOINTS
from serve.isolation import reply_isolating_faults
from serve.journal import Count, Journal
from serve.service import Report, Service
from serve.torchserve.messages import Row, set_head, to_message
from serve.torchserve.upstream import send_early
from serve.wire.replies import Reply
from serve.wire.requests import Message
from serve.wire.weight import LIGHT_PIXELS, weigh


class Worker:
    """One endpoint in one worker process.

    Args:
        service: makes the replies.
        endpoint: a name in ENDPOINTS.
        count: adds a batch to the metrics; None where nobody reads metrics.
        canary_token: what the launcher's canaries carry; None where no launcher sends canaries.
    """

    def __init__(
        self,
        service: Service,
        endpoint: str,
        count: Count | None = None,
        canary_token: str | None = None,
    ) -> None:
        self._service, self._operation = service, service.operation(endpoint)
        self._takes = ENDPOINTS[endpoint].takes
        self._journal = Journal(endpoint, count, canary_token)
        self._untold: list[tuple[Report, Sequence[Message], Sequence[Reply], Sequence[str]]] = []

    def handle_batch(self, batch: Sequence[Row], context: Any) -> list[bytes]:
        """Reply to one dynamic batch: returns the bodies; statuses and headers go into ``context``.

        Light requests don't wait for heavy requests that happen to share their batch.
        """
        light, heavy = dict[int, Message](), dict[int, Message]()
        for index, row in enumerate(batch):
            message = to_message(row, context, index)
            pixels = weigh(message, self._takes, self._service.manifest)
            (light if pixels <= LIGHT_PIXELS else heavy)[index] = message
        bodies = self._handle_part(light, context)
        if light and heavy:
            send_early(context, bodies)
        bodies |= self._handle_part(heavy, context)
        return [bodies[index] for index in range(len(batch))]

    def _handle_part(self, placed: Mapping[int, Message], context: Any) -> dict[int, bytes]:
        """Reply to some messages of a batch: place in the batch → message, place → body."""
        if not placed:
            return {}
        messages = list(placed.values())
        request_ids = [context.get_request_id(index) for index in placed]
        report = Report()
        replies = reply_isolating_faults(self._operation, messages, request_ids, report)
        for index, reply in zip(placed, replies, strict=True):
            set_head(context, index, reply, self._service.headers)
        self._untold.append((report, messages, replies, request_ids))
        return {index: reply.body for index, reply in zip(placed, replies, strict=True)}

    def tell(self) -> None:
        """Count and log the last batch; called once its replies are out: no caller waits for it."""
        for handled in self._untold:
            self._journal.tell(*handled)
        self._untold.clear()
