"""Embedding with Ray Serve: POST an image file to /, get its embedding.

    BUNDLE=build/mnist python -m bench.peers.ray_service --port 9080

As Ray's page on performance has it: a replica for each core, an async handler, many requests at a
time in a replica, and the variable RAY_SERVE_THROUGHPUT_OPTIMIZED. The same page advises batching.
"""

import argparse
import os
import signal
import sys
from typing import Any

os.environ |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

from bench.peers.encoder import Encoder

CORES = len(os.sched_getaffinity(0))


@serve.deployment(num_replicas=CORES, max_ongoing_requests=1000)
class EmbedDeployment:
    """One image file → its embedding."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    async def __call__(self, request: Request) -> dict[str, Any]:
        """The body is one file."""
        return {"embedding": await self.embed(self.encoder.read(await request.body()))}

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def embed(self, images: list[np.ndarray]) -> list[list[float]]:
        """uint8[1, H, W] of several requests → their embeddings."""
        return self.encoder.embed(np.stack(images)).tolist()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init("local", num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": parser.parse_args().port})
    serve.run(EmbedDeployment.bind())
    signal.pause()
