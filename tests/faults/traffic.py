"""Requests of every form whose right answers are known: a pool of images, and a deck of requests.

Every request of a deck asks for images of its own, so that a reply that went to another caller is
noticed.
"""

import base64
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.bundle.engine.opening import open_engine
from serve.bundle.images import to_pixels, write_png
from serve.bundle.manifest import Bundle
from serve.bundle.score import mean_squared_errors
from serve.wire.npy import write_npy
from tests.faults.client import Answer, Question
from tests.serve.conftest import read_outputs

EMBEDDING = 1e-4  # how far a right embedding may be off; nearer images aren't put into a pool
MSE = 1e-5
GARBAGE = 0.02  # of a deck
BINARY = {"parameters": {"binary_data_output": True}}
BOUNDARY = "--faults"


@dataclass(frozen=True)
class Pool:
    """Images and the engine's own answers.

    Attributes:
        images: uint8[P, 1, 28, 28].
        embeddings: float32[P, D], any two of them further apart than 2 * EMBEDDING.
        pixels: uint8[P, 1, 28, 28], the reconstructions.
        mse: float32[P].
        files: each image as a PNG.
    """

    images: NDArray[np.uint8]
    embeddings: NDArray[np.float32]
    pixels: NDArray[np.uint8]
    mse: NDArray[np.float32]
    files: list[bytes]


@dataclass(frozen=True)
class Card:
    """A request, and what is right in reply to it.

    Attributes:
        question: the request.
        is_right: judges a reply. It may raise ValueError, LookupError or TypeError for a reply that
            it can't read, and those replies are wrong too.
        images: how many images or embeddings the request has.
    """

    question: Question
    is_right: Callable[[Answer], bool]
    images: int


def make_pool(bundle: Bundle, images: NDArray[np.uint8]) -> Pool:
    """Ask the engine about each image, and leave out those that others resemble too much."""
    engine = open_engine(bundle, "onnxruntime", "cpu")
    embeddings = engine.embed(images)
    gaps = np.abs(embeddings[:, None] - embeddings[None]).max(-1)
    np.fill_diagonal(gaps, np.inf)
    kept = gaps.min(1) > 2 * EMBEDDING
    images, embeddings = images[kept], embeddings[kept]
    decoded = engine.decode(embeddings)
    files = [write_png(image) for image in images]
    return Pool(images, embeddings, to_pixels(decoded), mean_squared_errors(images, decoded), files)


def deal(pool: Pool, count: int, most: int, seed: int = 0) -> list[Card]:
    """A deck of ``count`` requests of up to ``most`` images, 2 % of them garbage."""
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
    return [
        garbage(pool, dice) if dice.random() < GARBAGE else card(pool, dice, size_of(dice, most))
        for _ in range(count)
    ]


def size_of(dice: random.Random, most: int) -> int:
    """Most requests are small; one in ten has up to 512 images, one in a hundred up to 4,096."""
    limit = min(most, dice.choices((32, 512, 4_096), (90, 9, 1))[0])
    return int(limit ** dice.random())


def card(pool: Pool, dice: random.Random, size: int) -> Card:
    """A request of a random endpoint and form for so many random images."""
    endpoint = dice.choice(("embed", "reconstruct", "decode"))
    forms = VECTOR_FORMS if endpoint == "decode" else FILE_FORMS if size == 1 else IMAGE_FORMS
    accept = "application/x-npy" if dice.random() < 0.3 else "application/json"
    return card_of(pool, dice, size, endpoint, dice.choice(forms), accept)


def card_of(
    pool: Pool, dice: random.Random, size: int, endpoint: str, form: "Form", accept: str
) -> Card:
    """A request for so many random images."""
    rows = [dice.randrange(len(pool.files)) for _ in range(size)]
    body, headers = form(pool, rows)
    path = f"/v2/models/{endpoint}/infer" if form in OIP_FORMS else f"/predictions/{endpoint}"
    question = Question("POST", path, body, {**headers, "Accept": accept})
    return Card(question, lambda answer: is_right(answer, endpoint, pool, rows), size)


def garbage(pool: Pool, dice: random.Random) -> Card:
    """A file that is none, or a list with such a file between two good files."""
    rubbish = dice.randbytes(200)
    if dice.random() < 0.5:
        question = Question("POST", "/predictions/embed", rubbish, {"Content-Type": "image/png"})
        return Card(question, lambda answer: refusal(answer) == (400, "InvalidImage"), 1)
    rows = [dice.randrange(len(pool.files)) for _ in range(2)]
    files = [pool.files[rows[0]], rubbish, pool.files[rows[1]]]
    question = Question("POST", "/predictions/embed", *json_of(files))

    def fails_alone(answer: Answer) -> bool:
        reply = json.loads(answer.body)
        first, none, second = reply["embeddings"]
        near = np.abs(np.array([first, second]) - pool.embeddings[rows]).max() < EMBEDDING
        return answer.status == 200 and none is None and bool(near)

    return Card(question, fails_alone, 2)


def refusal(answer: Answer) -> tuple[int, str]:
    """The status and the type of an error in the contract's form."""
    return answer.status, json.loads(answer.body)["type"]


# The forms of a request. Each gives a body and its headers.

Written = tuple[bytes, dict[str, str]]
Form = Callable[[Pool, Sequence[int]], Written]


def file_form(pool: Pool, rows: Sequence[int]) -> Written:
    """One file."""
    return pool.files[rows[0]], {"Content-Type": "image/png"}


def multipart_form(pool: Pool, rows: Sequence[int]) -> Written:
    """A form of files under one name."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="i"; filename="i"\r\n\r\n'
    parts = [head.encode() + pool.files[row] + b"\r\n" for row in rows]
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode(), headers


def json_form(pool: Pool, rows: Sequence[int]) -> Written:
    """Files in JSON."""
    return json_of([pool.files[row] for row in rows])


def json_of(files: Sequence[bytes]) -> Written:
    """Files in JSON."""
    listed = [base64.b64encode(file).decode() for file in files]
    return json.dumps({"images": listed}).encode(), {"Content-Type": "application/json"}


def npy_form(pool: Pool, rows: Sequence[int]) -> Written:
    """An array of images."""
    return write_npy(pool.images[rows]), {"Content-Type": "application/x-npy"}


def oip_form(pool: Pool, rows: Sequence[int]) -> Written:
    """Images as a raw tensor of the Open Inference Protocol, to be answered in raw tensors."""
    return oip_raw("images", "UINT8", pool.images[rows])


def oip_files_form(pool: Pool, rows: Sequence[int]) -> Written:
    """Files in the JSON of the Open Inference Protocol, to be answered in JSON."""
    files = [base64.b64encode(pool.files[row]).decode() for row in rows]
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(rows)], "data": files}
    return json.dumps({"inputs": [tensor]}).encode(), {"Content-Type": "application/json"}


def vectors_form(pool: Pool, rows: Sequence[int]) -> Written:
    """Embeddings in JSON."""
    body = json.dumps({"embeddings": pool.embeddings[rows].tolist()}).encode()
    return body, {"Content-Type": "application/json"}


def vectors_npy_form(pool: Pool, rows: Sequence[int]) -> Written:
    """An array of embeddings."""
    return write_npy(pool.embeddings[rows]), {"Content-Type": "application/x-npy"}


def vectors_oip_form(pool: Pool, rows: Sequence[int]) -> Written:
    """Embeddings as a raw tensor of the Open Inference Protocol."""
    return oip_raw("embeddings", "FP32", pool.embeddings[rows])


def oip_raw(name: str, datatype: str, values: NDArray[np.generic]) -> Written:
    """A raw tensor after its JSON."""
    size = {"binary_data_size": values.nbytes}
    tensor = {"name": name, "datatype": datatype, "shape": values.shape, "parameters": size}
    head = json.dumps({"inputs": [tensor], **BINARY}).encode()
    return head + values.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


IMAGE_FORMS = (multipart_form, json_form, npy_form, oip_form, oip_files_form)
FILE_FORMS = (file_form, file_form, *IMAGE_FORMS)
VECTOR_FORMS = (vectors_form, vectors_npy_form, vectors_oip_form)
OIP_FORMS = (oip_form, oip_files_form, vectors_oip_form)


# The judge of replies.


@dataclass
class Found:
    """What a reply holds, whatever its form; None is what it leaves out."""

    embeddings: NDArray[np.float32] | None = None
    pixels: NDArray[np.uint8] | list[str] | None = None
    mse: NDArray[np.float32] | None = None
    errors: list[object] = field(default_factory=list)


def is_right(answer: Answer, endpoint: str, pool: Pool, rows: Sequence[int]) -> bool:
    """Whether a reply is the engine's own answer for these images."""
    found = read(answer, endpoint)
    if answer.status != 200 or found.errors:
        return False
    if endpoint == "embed":
        return near(found.embeddings, pool.embeddings[rows], EMBEDDING)
    told_mse = endpoint == "decode" or near(found.mse, pool.mse[rows], MSE)
    return told_mse and same_pixels(found.pixels, pool.pixels[rows])


def near(found: NDArray[np.float32] | None, right: NDArray[np.float32], allowed: float) -> bool:
    """Whether numbers are the right numbers, in the right order."""
    if found is None or found.shape != right.shape:
        return False
    return bool(np.abs(found - right).max() <= allowed)


def same_pixels(found: NDArray[np.uint8] | list[str] | None, right: NDArray[np.uint8]) -> bool:
    """Whether pictures are right, but for the rounding of a grey level."""
    if found is None or len(found) != len(right):
        return False
    if isinstance(found, list):
        found = np.stack([read_picture(text) for text in found])
    return bool(np.abs(found.astype(np.int16) - right).max() <= 1)


def read_picture(text: str) -> NDArray[np.uint8]:
    """A PNG in base64 → uint8[1, H, W]."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        return np.asarray(picture)[None]


def read(answer: Answer, endpoint: str) -> Found:
    """Read a reply of any form."""
    kind = answer.headers.get("content-type", "")
    if kind == "application/x-npy":
        array = np.load(io.BytesIO(answer.body))
        if endpoint == "embed":
            return Found(embeddings=array)
        told = answer.headers.get("x-mse")
        mse = None if told is None else np.array(told.split(","), np.float32)
        return Found(pixels=array, mse=mse)
    length = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    reply = json.loads(answer.body[:length])
    if "outputs" in reply:
        return read_tensors(reply["outputs"], answer.body[length:])
    return read_json(reply)


def read_json(reply: dict[str, object]) -> Found:
    """A singular or a plural reply."""

    def numbers(one: str, many: str) -> NDArray[np.float32] | None:
        values = [reply[one]] if one in reply and many != one else reply.get(many)
        if values is None:
            return None
        return np.array(values if isinstance(values, list) else [values], np.float32)

    pictures = reply.get("reconstructions", reply.get("images"))
    if "reconstruction" in reply:
        pictures = [reply["reconstruction"]]
    return Found(
        numbers("embedding", "embeddings"), pictures, numbers("mse", "mse"), reply.get("errors", [])
    )


def read_tensors(outputs: list[dict[str, Any]], raw: bytes) -> Found:
    """The outputs of the Open Inference Protocol, in JSON or raw."""
    tensors = read_outputs(outputs, raw)
    pixels = tensors.get("reconstructions", tensors.get("images"))
    return Found(tensors.get("embeddings"), pixels, tensors.get("mse"))
