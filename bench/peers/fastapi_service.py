"""Embedding with FastAPI: POST an image file to /embed, get its embedding.

    BUNDLE=build/mnist uvicorn bench.peers.fastapi_service:app --workers 2

One process for each core, each with a session of one thread. The handler runs on the event loop:
handing half a millisecond's work to a thread costs more than it frees. Many images are sent to
/embed-many as a .npy file, and come back as one.
"""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from bench.peers.encoder import Encoder


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the model before the first request."""
    app.state.encoder = Encoder()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/embed")
async def embed(request: Request) -> JSONResponse:
    """One image file → its embedding."""
    encoder = request.app.state.encoder
    (embedding,) = encoder.embed(encoder.read(await request.body())[None])
    return JSONResponse({"embedding": embedding.tolist()})


@app.post("/embed-many")
async def embed_many(request: Request) -> Response:
    """uint8[N, 1, H, W] → float32[N, D], both as .npy files."""
    images, reply = np.load(io.BytesIO(await request.body())), io.BytesIO()
    np.save(reply, request.app.state.encoder.embed(images))
    return Response(reply.getvalue(), media_type="application/x-npy")
