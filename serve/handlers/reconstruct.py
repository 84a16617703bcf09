"""POST /predictions/reconstruct: image(s) → reconstruction(s), mse, anomaly."""

from collections.abc import Sequence
from typing import Any

from serve.handlers.torchserve import Row, answer_batch, open_service


class ReconstructHandler:
    """TorchServe's entry point: one reply for each request of a batch, in order."""

    def initialize(self, context: Any) -> None:
        """Open the bundle; called once, as the worker starts."""
        self.service = open_service(context)

    def handle(self, batch: Sequence[Row], context: Any) -> list[bytes]:
        """Answer one dynamic batch."""
        return answer_batch(self.service, "reconstruct", batch, context)
