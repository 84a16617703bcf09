"""A fake engine whose answers depend on its input, so that crossed replies are noticed."""

import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serve.bundle.manifest import Bundle, ImageSpec
from serve.service import Service
from serve.wire.message import Message
from serve.wire.npy import write_npy
from serve.wire.replies import Reply

INVALID = "InvalidEmbedding"
SPEC = ImageSpec(channels=1, height=28, width=28, polarity="auto", framing="ink")


class FakeEngine:
    """embedding = (mean, max) of the image; image = filled with the embedding's first number."""

    name = "fake"
    precision = "fp32"

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        flat = images.reshape(len(images), -1)
        return np.stack([flat.mean(1), flat.max(1)], axis=1).astype(np.float32)

    def decode(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        shade = np.clip(embeddings[:, 0] / 255, 0, 1)
        return np.broadcast_to(shade[:, None, None, None], (len(shade), 1, 28, 28)).copy()


def png(shade: int, size: tuple[int, int] = (28, 28), mode: str = "L") -> bytes:
    """A PNG file of one shade."""
    file = io.BytesIO()
    Image.new(mode, size, shade if mode == "L" else (shade,) * len(mode)).save(file, "PNG")
    return file.getvalue()


def b64(data: bytes) -> str:
    """A file as JSON carries it."""
    return base64.b64encode(data).decode()


@pytest.fixture
def service(small_bundle: Bundle) -> Service:
    """The service on the fake engine, calibrated so that any mse over 0.1 is an outlier's."""
    calibration = replace(
        small_bundle.manifest.calibration,
        mse_quantiles=list(np.linspace(0, 0.1, 101)),
        embedding_min=[0.0, 0.0],
        embedding_max=[255.0, 255.0],
    )
    manifest = replace(small_bundle.manifest, calibration=calibration)
    return Service(replace(small_bundle, manifest=manifest), FakeEngine())


def read_outputs(outputs: list[dict[str, Any]], raw: bytes) -> dict[str, NDArray[Any]]:
    """The outputs of the Open Inference Protocol, in JSON or raw behind the JSON, by name."""
    found, start = {}, 0
    for output in outputs:
        dtype = {"FP32": np.float32, "UINT8": np.uint8}[output["datatype"]]
        if "data" in output:
            values = np.array(output["data"], dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            values = np.frombuffer(raw[start : start + size], dtype)
            start += size
        found[output["name"]] = values.reshape(output["shape"])
    assert start == len(raw)
    return found


def file(body: bytes, content_type: str = "image/png", **headers: str) -> Message:
    """A request with one image file."""
    return Message(body, {"content-type": content_type, **headers})


def envelope(key: str, rows: list[Any], **headers: str) -> Message:
    """A plural JSON request."""
    return Message(
        json.dumps({key: rows}).encode(), {"content-type": "application/json", **headers}
    )


def array(values: np.ndarray, **headers: str) -> Message:
    """A request with an array."""
    return Message(write_npy(values), {"content-type": "application/x-npy", **headers})


def fields(reply: Reply) -> dict[str, Any]:
    """The JSON of a reply."""
    assert reply.content_type == "application/json"
    answer: dict[str, Any] = json.loads(reply.body)
    return answer


def shades(data: bytes) -> np.ndarray:
    """The pixels of a PNG."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)
