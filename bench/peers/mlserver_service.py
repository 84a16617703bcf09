"""Embedding with MLServer: POST files in base64 to /v2/models/embed/infer.

    BUNDLE=build/mnist python -m bench.peers.mlserver_service --port 9080

A custom runtime, as MLServer's user guide has it, with an inference worker for each core and
adaptive batching. MLServer itself decodes base64: it takes no other form of bytes in JSON.
"""

import argparse
import asyncio
import os

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.encoder import Encoder


class EmbedRuntime(MLModel):
    """Files of one request or of a batch → their embeddings."""

    async def load(self) -> bool:
        """Open the model, once in each worker."""
        self.encoder = Encoder()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """BYTES[N] → FP32[N, D]."""
        files = Base64Codec.decode_input(payload.inputs[0])
        embeddings = self.encoder.embed(np.stack([self.encoder.read(file) for file in files]))
        output = NumpyCodec.encode_output("embeddings", embeddings)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve(port: int) -> None:
    """Serve the model until a signal comes."""
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_endpoint=None,
        parallel_workers=len(os.sched_getaffinity(0)),
        load_models_at_startup=False,
    )
    model = ModelSettings(
        name="embed",
        implementation="bench.peers.mlserver_service.EmbedRuntime",
        max_batch_size=64,
        max_batch_time=0.001,
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    asyncio.run(serve(parser.parse_args().port))
