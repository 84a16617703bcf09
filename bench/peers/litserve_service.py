"""Embedding with LitServe and dynamic batching: POST an image file to /predict.

    BUNDLE=build/mnist python -m bench.peers.litserve_service --port 9080 --cores 2

On two cores, two HTTP processes and one worker, talking over ZeroMQ, answered the most requests of
all combinations that were tried; LitServe's default queue answered fewer.
"""

import argparse
import io
import os
from pathlib import Path
from typing import Annotated, Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Body
from PIL import Image


class EmbedAPI(litserve.LitAPI):
    """File bytes → pixels → embeddings of a batch → JSON."""

    def setup(self, device: str) -> None:
        """Open the model, once in each worker."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        encoder = Path(os.environ["BUNDLE"]) / "encoder.onnx"
        self.session = onnxruntime.InferenceSession(
            encoder, options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request: Annotated[bytes, Body()]) -> np.ndarray:
        """A file → uint8[1, H, W]."""
        return np.asarray(Image.open(io.BytesIO(request)).convert("L"))[None]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """uint8[N, 1, H, W] → float32[N, D]."""
        return self.session.run(["embeddings"], {"images": images})[0]

    def encode_response(self, embedding: np.ndarray) -> dict[str, Any]:
        """One row → JSON."""
        return {"embedding": embedding.tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    api = EmbedAPI(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=max(1, options.cores // 2), fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=options.port,
        num_api_servers=options.cores,
        log_level="warning",
        generate_client_file=False,
    )
