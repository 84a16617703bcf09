"""What a request is expected to cost, before anything of it is read."""

import io
import json
import struct
from base64 import encodebytes, urlsafe_b64encode
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from serve.bundle.limits import MAX_BODY_BYTES
from serve.bundle.manifest import Bundle
from serve.wire import media
from serve.wire.message import Message
from serve.wire.npy import write_npy
from serve.wire.weight import LEAST_PIXELS, LIGHT_PIXELS, weigh

from .conftest import b64, png

JSON, NPY = {"content-type": "application/json"}, {"content-type": "application/x-npy"}
IMAGE, OPENAI = {"content-type": "image/png"}, {"content-type": media.OPENAI}
FORM = {"content-type": "multipart/form-data; boundary=x"}
LENGTH = "inference-header-content-length"
SMALL, HUGE = png(200), png(200, (5_000, 5_000))  # 73 bytes, and 60 kB that declare 25 megapixels


def drawn(kind: str, side: int) -> bytes:
    """A blank picture."""
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, kind)
    return file.getvalue()


JPEG, LARGE_JPEG = drawn("JPEG", 28), drawn("JPEG", 1_000)
WEBP = drawn("WEBP", 2_000)  # 4 megapixels in 5 kB


def images(count: int) -> bytes:
    """An array of images."""
    return write_npy(np.zeros((count, 28, 28), np.uint8))


def files(*each: bytes) -> bytes:
    """Files in JSON."""
    return texts(*map(b64, each))


def texts(*each: str) -> bytes:
    """Strings in JSON."""
    return json.dumps({"images": each}).encode()


def form(*each: bytes) -> bytes:
    """Files as a form that nobody has taken apart yet."""
    head = b'--x\r\nContent-Disposition: form-data; name="i"; filename="i"\r\n\r\n'
    return b"".join(head + file + b"\r\n" for file in each) + b"--x--\r\n"


def raw(*each: bytes) -> Message:
    """Files as the raw elements of a BYTES tensor."""
    elements = b"".join(struct.pack("<I", len(file)) + file for file in each)
    size = {"binary_data_size": len(elements)}
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(each)], "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    return Message(head + elements, {LENGTH: str(len(head))}, oip=True)


def spaced(text: bytes) -> str:
    """JSON whose base64 has a space in it that is none in ASCII."""
    return text.decode().replace("R", "R\u2003", 1)


def raw_vectors(count: int) -> Message:
    """Embeddings as the raw elements of an FP32 tensor."""
    numbers = bytes(4 * 2 * count)
    size = {"binary_data_size": len(numbers)}
    tensor = {"name": "embeddings", "datatype": "FP32", "shape": [count, 2], "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    return Message(head + numbers, {LENGTH: str(len(head))}, oip=True)


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
        ("images", Message(JPEG, IMAGE), True),
        ("images", Message(LARGE_JPEG, IMAGE), False),
        ("images", Message(WEBP, IMAGE), False),
        ("images", Message(b"", FORM, parts=[SMALL, WEBP]), False),
        ("images", Message(form(*[SMALL] * 100), FORM), True),
        ("images", Message(form(SMALL, WEBP), FORM), False),
        ("images", Message(files(SMALL, WEBP), JSON), False),
        ("images", Message(files(WEBP).replace(b"/", b"\\/"), JSON), False),
        ("images", Message(texts(urlsafe_b64encode(HUGE).decode().rstrip("=")), JSON), False),
        ("images", Message(texts("data:image/png;base64," + b64(HUGE)), JSON), False),
        ("images", Message(texts(encodebytes(HUGE).decode()), JSON), False),
        ("images", Message(texts(b64(HUGE)), OPENAI), False),
        ("images", Message(texts(b64(SMALL)), OPENAI), True),
        ("images", Message(files(WEBP).replace(b"R", b"\\u0052"), JSON), False),
        ("images", Message(b'{"a": "\\"", ' + files(WEBP)[1:], JSON), False),
        ("images", Message(files(WEBP).decode().encode("utf-16"), JSON), False),
        ("images", Message(spaced(files(WEBP)).encode("utf-16-be"), JSON), False),
        ("images", Message(spaced(files(WEBP)).encode("utf-32"), JSON), False),
        ("images", Message(files(WEBP), JSON | {LENGTH: str(len(files(WEBP)))}, oip=True), False),
        ("images", raw(*[SMALL] * 100), True),
        ("images", raw(SMALL, WEBP), False),
        ("images", raw(*[SMALL] * 1_000), False),
        ("embeddings", raw_vectors(300), True),
        ("embeddings", raw_vectors(400), False),
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
    """A file that is cut short is weighed like any other; even no file at all costs something."""
    assert weigh(Message(file, IMAGE), "images", small_bundle.manifest) == LEAST_PIXELS


@pytest.mark.parametrize("length", ["9" * 5_000, "\u0663", "-1", ""])
def test_wrong_lengths_hold_no_files(small_bundle: Bundle, length: str) -> None:
    """A length that is no number, or longer than Python reads, is for the reader to refuse."""
    message = replace(raw(SMALL), headers={LENGTH: length})

    assert weigh(message, "images", small_bundle.manifest) == LEAST_PIXELS


@pytest.mark.parametrize("length", ["0", "9", "100000000"])
@pytest.mark.parametrize(
    ("takes", "message"),
    [
        ("images", Message(files(WEBP), JSON)),
        ("images", Message(files(*[SMALL] * 1_000), JSON)),
        ("images", Message(texts(b64(HUGE)), OPENAI)),
        ("embeddings", Message(b'{"embeddings": [' + b"[0,0]" * 3_000 + b"]}", JSON)),
    ],
)
def test_header_of_raw_tensors_means_nothing_elsewhere(
    small_bundle: Bundle, takes: str, message: Message, length: str
) -> None:
    """Or else any request could pass for a light one."""
    marked = replace(message, headers={**message.headers, LENGTH: length})

    expected = weigh(message, takes, small_bundle.manifest)
    assert weigh(marked, takes, small_bundle.manifest) == expected > LIGHT_PIXELS


@pytest.mark.parametrize(
    "message",
    [
        Message(files(*[SMALL] * 1_000), JSON),
        Message(form(*[SMALL] * 1_000), FORM),
        Message(b"", FORM, parts=[SMALL] * 1_000),
        raw(*[SMALL] * 1_000),
    ],
    ids=["json", "form", "parts", "raw"],
)
def test_small_files_weigh_what_is_made_of_them(small_bundle: Bundle, message: Message) -> None:
    """A file of 73 bytes becomes an image of the model's size like any other."""
    spec = replace(small_bundle.manifest.image, channels=3, height=64, width=64)
    larger = replace(small_bundle.manifest, image=spec)

    assert 1_000 * 3 * 64 * 64 <= weigh(message, "images", larger) <= MAX_BODY_BYTES


@pytest.mark.parametrize("body", [b"[0,0]" * 3_000, b"[1e-5, -2.5],\n" * 3_000])
def test_embeddings_are_counted(small_bundle: Bundle, body: bytes) -> None:
    """As many pictures are drawn as there are embeddings, however short their numbers are."""
    message = Message(b'{"embeddings": [' + body + b"]}", JSON)

    assert weigh(message, "embeddings", small_bundle.manifest) == 3_000 * 784


@pytest.mark.parametrize("side", [2**31 - 1, 6_000])
def test_lies_weigh_nothing(small_bundle: Bundle, side: int) -> None:
    """A file that declares more than it may, or can hold, is refused, and keeps nobody waiting."""
    liar = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", side, side) + bytes(40)

    assert weigh(Message(liar, IMAGE), "images", small_bundle.manifest) == 784
