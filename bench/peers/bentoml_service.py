"""Embedding with BentoML: POST an image file to /embed, get its embedding.

    BUNDLE=build/mnist bentoml serve bench.peers.bentoml_service:EmbedService

A worker for each core, as BentoML's page on workers has it for CPUs, without the access log, the
metrics and the traces. Its adaptive batching would need a second service between them.
"""

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from bench.peers.encoder import Encoder


@bentoml.service(
    workers=len(os.sched_getaffinity(0)),
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class EmbedService:
    """One image file → its embedding."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    @bentoml.api(route="/embed")
    async def embed(
        self, file: Annotated[Path, ContentType("image/*")], /
    ) -> dict[str, list[float]]:
        """The body is one file."""
        (embedding,) = self.encoder.embed(self.encoder.read(file.read_bytes())[None])
        return {"embedding": embedding.tolist()}
