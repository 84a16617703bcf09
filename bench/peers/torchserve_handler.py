"""The shortest handler for TorchServe: image files → embeddings. torchserve_service.py runs it."""

import json
from typing import Any

import numpy as np

from bench.peers.encoder import Encoder


class EmbedHandler:
    """The rows of a dynamic batch → a reply for each."""

    def initialize(self, context: Any) -> None:
        """Open the model, once in each worker."""
        self.encoder = Encoder()

    def handle(self, rows: list[dict[str, bytes]], context: Any) -> list[str]:
        """Read, run, write."""
        images = np.stack([self.encoder.read(row["body"]) for row in rows])
        return [json.dumps({"embedding": row}) for row in self.encoder.embed(images).tolist()]
