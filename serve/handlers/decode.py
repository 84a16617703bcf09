"""POST /predictions/decode: embedding(s) → image(s)."""

from collections.abc import Sequence
from typing import Any

from serve.handlers.torchserve import Row, open_worker


class DecodeHandler:
    """TorchServe's entry point: one reply for each request of a batch, in order."""

    def initialize(self, context: Any) -> None:
        """Open the bundle; called once, as the worker starts."""
        self.worker = open_worker(context, "decode")

    def handle(self, batch: Sequence[Row], context: Any) -> list[bytes]:
        """Answer one dynamic batch."""
        return self.worker.answer(batch, context)
