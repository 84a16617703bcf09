"""Embedding with FastAPI: POST an image file to /embed, get its embedding.

    BUNDLE=build/mnist uvicorn bench.peers.fastapi_service:app --workers 2

One process for each core, each with a session of one thread. The handler runs on the event loop:
handing half a millisecond's work to a thread costs more than it frees.
"""

import io
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the model before the first request."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    encoder = Path(os.environ["BUNDLE"]) / "encoder.onnx"
    app.state.session = onnxruntime.InferenceSession(
        encoder, options, providers=["CPUExecutionProvider"]
    )
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/embed")
async def embed(request: Request) -> JSONResponse:
    """One image file → its embedding."""
    image = Image.open(io.BytesIO(await request.body())).convert("L")
    pixels = np.asarray(image)[None, None]  # uint8[1, 1, H, W]
    (embeddings,) = app.state.session.run(["embeddings"], {"images": pixels})
    return JSONResponse({"embedding": embeddings[0].tolist()})
