"""One endpoint in one of TorchServe's worker processes: a dynamic batch → replies.

The road of a request, and what each step adds:

    Worker.handle_batch         rows become messages, replies go into TorchServe's context
    Worker._parts               light messages are answered together, heavy ones one by one
    reply_isolating_faults      an unexpected error costs its own request alone (serve.isolation)
    Service.embed, …            read, run, write (serve.service)
"""

from collections.abc import Iterator, Sequence
from typing import Any

from serve.endpoints import ENDPOINTS
from serve.isolation import reply_isolating_faults
from serve.journal import Journal
from serve.service import Report, Service
from serve.torchserve.messages import Row, set_head, to_message
from serve.wire.message import Message, request_id_of
from serve.wire.replies import Reply
from serve.wire.weight import LIGHT_PIXELS, weigh


class Worker:
    """One endpoint in one worker process.

    Args:
        service: makes the replies.
        endpoint: a name in ENDPOINTS.
        journal: is told of every batch.
    """

    def __init__(self, service: Service, endpoint: str, journal: Journal) -> None:
        self._service, self._operation = service, service.operation(endpoint)
        self._takes = ENDPOINTS[endpoint].takes
        self._journal = journal
        self._untold: list[tuple[Report, Sequence[Message], Sequence[Reply], Sequence[str]]] = []

    def handle_batch(self, batch: Sequence[Row], context: Any) -> list[bytes]:
        """Reply to one dynamic batch: returns the bodies; statuses and headers go into ``context``.

        Light requests are answered together, heavy requests one by one: the pixels of several
        heavy requests are never in memory at once.
        """
        messages = [to_message(row, context, index) for index, row in enumerate(batch)]
        replies = dict[int, Reply]()
        for places in self._parts(messages):
            request_ids = [
                request_id_of(messages[place].headers) or context.get_request_id(place)
                for place in places
            ]
            part = self._reply_to([messages[place] for place in places], request_ids)
            replies |= zip(places, part, strict=True)
        for place, reply in replies.items():
            set_head(context, place, reply, self._service.headers)
        return [replies[place].body for place in range(len(batch))]

    def _parts(self, messages: Sequence[Message]) -> Iterator[list[int]]:
        """Places in the batch of the messages that are answered together, part by part."""
        manifest = self._service.manifest
        weights = [weigh(message, self._takes, manifest) for message in messages]
        if light := [place for place, pixels in enumerate(weights) if pixels <= LIGHT_PIXELS]:
            yield light
        yield from ([place] for place, pixels in enumerate(weights) if pixels > LIGHT_PIXELS)

    def _reply_to(self, messages: Sequence[Message], request_ids: Sequence[str]) -> list[Reply]:
        """Reply to some messages of a batch, and keep what ``tell`` will tell of them."""
        report = Report()
        replies = reply_isolating_faults(self._operation, messages, request_ids, report)
        self._untold.append((report, messages, replies, request_ids))
        return replies

    def tell(self) -> None:
        """Count and log the last batch; called once its replies are out: no caller waits for it."""
        for handled in self._untold:
            self._journal.tell(*handled)
        self._untold.clear()
