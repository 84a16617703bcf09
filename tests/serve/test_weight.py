"""What a request is expected to cost, before anything of it is read."""

import json
from dataclasses import replace

import numpy as np
import pytest

from serve.bundle.manifest import Bundle
from serve.wire.npy import write_npy
from serve.wire.requests import Message
from serve.wire.weight import LIGHT_PIXELS, weigh

from .conftest import b64, png

JSON, NPY = {"content-type": "application/json"}, {"content-type": "application/x-npy"}
IMAGE = {"content-type": "image/png"}
FORM = {"content-type": "multipart/form-data; boundary=x"}
SMALL, HUGE = png(200), png(200, (5_000, 5_000))  # 73 bytes, and 60 kB that declare 25 megapixels


def images(count: int) -> bytes:
    """An array of images."""
    return write_npy(np.zeros((count, 28, 28), np.uint8))


def files(*each: bytes) -> bytes:
    """Files in JSON."""
    return json.dumps({"images": [b64(file) for file in each]}).encode()


def vectors(count: int) -> bytes:
    """An array of embeddings."""
    return write_npy(np.zeros((count, 2), np.float32))


@pytest.mark.parametrize(
    ("takes", "message", "light"),
    [
        ("images", Message(SMALL, IMAGE), True),
        ("images", Message(HUGE, IMAGE), False),
        ("images", Message(b"", FORM, parts=[SMALL] * 9), True),
        ("images", Message(b"", FORM, parts=[SMALL, HUGE]), False),
        ("images", Message(b"--x" * 9, FORM), True),
        ("images", Message(bytes(1 << 20), FORM), False),
        ("images", Message(files(*[SMALL] * 100), JSON), True),
        ("images", Message(files(HUGE), JSON), False),
        ("images", Message(images(300), NPY), True),
        ("images", Message(images(400), NPY), False),
        ("images", Message(files(*[SMALL] * 1_000), JSON, oip=True), False),
        ("embeddings", Message(vectors(300), NPY), True),
        ("embeddings", Message(vectors(400), NPY), False),
        ("embeddings", Message(b'{"embeddings": [[0.1, 0.2]]}', JSON), True),
    ],
)
def test_light_is_what_costs_little(
    small_bundle: Bundle, takes: str, message: Message, light: bool
) -> None:
    """Pixels that are declared or to be drawn count, not bytes: a few kilobytes can be heavy."""
    assert (weigh(message, takes, small_bundle.manifest) <= LIGHT_PIXELS) is light


def test_larger_models_weigh_more(small_bundle: Bundle) -> None:
    """A picture that is to be drawn weighs as many pixels as the model's pictures have."""
    spec = replace(small_bundle.manifest.image, channels=3, height=64, width=64)
    larger = replace(small_bundle.manifest, image=spec)
    question = Message(vectors(20), NPY)

    assert weigh(question, "embeddings", small_bundle.manifest) <= LIGHT_PIXELS
    assert weigh(question, "embeddings", larger) > LIGHT_PIXELS


@pytest.mark.parametrize("file", [b"", b"\x89PNG", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"])
def test_stumps_have_a_weight(small_bundle: Bundle, file: bytes) -> None:
    """A file that is cut short is weighed like any other; even no file at all weighs something."""
    assert 0 < weigh(Message(file, IMAGE), "images", small_bundle.manifest) <= LIGHT_PIXELS
