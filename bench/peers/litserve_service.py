"""Embedding with LitServe and dynamic batching: POST an image file to /predict.

    BUNDLE=build/mnist python -m bench.peers.litserve_service --port 9080

On two cores, two HTTP processes and one worker, talking over ZeroMQ, answered the most requests of
all combinations that were tried; LitServe's default queue answered fewer.
"""

import argparse
import os
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body

from bench.peers.encoder import Encoder


class EmbedAPI(litserve.LitAPI):
    """File bytes → pixels → embeddings of a batch → JSON."""

    def setup(self, device: str) -> None:
        """Open the model, once in each worker."""
        self.encoder = Encoder()

    def decode_request(self, request: Annotated[bytes, Body()]) -> np.ndarray:
        """A file → uint8[1, H, W]."""
        return self.encoder.read(request)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """uint8[N, 1, H, W] → float32[N, D]."""
        return self.encoder.embed(images)

    def encode_response(self, embedding: np.ndarray) -> dict[str, Any]:
        """One row → JSON."""
        return {"embedding": embedding.tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    cores = len(os.sched_getaffinity(0))
    api = EmbedAPI(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=max(1, cores // 2), fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=parser.parse_args().port,
        num_api_servers=cores,
        log_level="warning",
        generate_client_file=False,
    )
