"""Embedding with Triton through pytriton: POST files as tensors to /v2/models/embed/infer.

    BUNDLE=build/mnist python -m bench.peers.triton_service --port 9080

Triton's own HTTP server and dynamic batches around Python functions, one for each core. pytriton's
wheel carries Triton, but none of its backends for ONNX. Requests reach Python by messages: for the
store of tensors in shared memory, the Python within Triton is too old for the host's library.
"""

import argparse
import os

os.environ["PYTRITON_NO_TENSORSTORE"] = "1"

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from bench.peers.encoder import Encoder


class Instance:
    """A function for Triton: BYTES[N, 1] of files → FP32[N, D]."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    @batch
    def __call__(self, images: NDArray[np.bytes_]) -> list[NDArray[np.float32]]:
        """The files of a dynamic batch → their embeddings."""
        return [self.encoder.embed(np.stack([self.encoder.read(file) for (file,) in images]))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=parser.parse_args().port,
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            "embed",
            [Instance() for _ in os.sched_getaffinity(0)],
            inputs=[Tensor(name="images", dtype=np.bytes_, shape=(1,))],
            outputs=[Tensor(name="embeddings", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=64),
        )
        triton.serve()
