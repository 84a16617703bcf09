"""The class that TorchServe calls, for every endpoint: TorchServe allows one class in this file.

A worker's model-config.yaml says which endpoint the worker serves.
"""

from collections.abc import Sequence
from typing import Any

from serve.torchserve.messages import Row
from serve.torchserve.startup import open_worker


class Handler:
    """One endpoint in one worker process, as TorchServe calls it."""

    def initialize(self, context: Any) -> None:
        """Open the bundle; TorchServe calls this once, as the worker starts."""
        self.worker = open_worker(context)

    def handle(self, batch: Sequence[Row], context: Any) -> list[bytes]:
        """One body for each request of a dynamic batch, in order."""
        return self.worker.handle_batch(batch, context)
