"""Tell an endpoint whose workers are busy from one whose workers are stuck.

TorchServe calls a worker READY whatever becomes of its batch. A batch that the JVM has no memory to
send is forgotten: the worker waits for the batch, the JVM waits 300 s for the replies, and every
other request waits in the queue. A library that never returns looks the same from outside.
"""

import time
from collections.abc import Collection
from pathlib import Path

from serve.endpoints import ENDPOINTS
from serve.torchserve.activity import pulse

# An endpoint may leave its canary unanswered for as long as its workers begin or end batches. Else:
LOST_S = 20.0  # while no worker is inside a batch: the JVM has forgotten one
STUCK_S = 120.0  # while workers are inside batches: no batch takes as long on every worker


class Silence:
    """Watches how long each endpoint has answered nothing.

    Args:
        folder: where the workers write their activity.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last = {
            endpoint: (pulse(folder, endpoint), time.monotonic()) for endpoint in ENDPOINTS
        }

    def fault(self, unanswered: Collection[str]) -> str | None:
        """Why TorchServe can't go on; None while it can.

        Args:
            unanswered: the endpoints whose canary just got no answer, though all workers are there.
        """
        now = time.monotonic()
        for endpoint, (before, since) in self._last.items():
            current = pulse(self._folder, endpoint)
            if current != before or endpoint not in unanswered:
                self._last[endpoint] = current, now
            elif now - since > (STUCK_S if current.under_way else LOST_S):
                return f"{endpoint} has answered nothing for {now - since:.0f} s"
        return None
