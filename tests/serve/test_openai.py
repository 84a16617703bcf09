"""OpenAI's embeddings API: files as text in, embeddings out, errors in its form."""

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serve.bundle.limits import MAX_IMAGES
from serve.service import Service
from serve.wire.media import OPENAI
from serve.wire.message import Message
from serve.wire.replies import Reply

from .conftest import b64, png


def ask(service: Service, fields: Any, **headers: str) -> Reply:
    """The reply to a request; ``fields`` may be a body."""
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    (reply,) = service.embed([Message(body, {"content-type": OPENAI, **headers})])
    return reply


@pytest.fixture
def question(service: Service) -> dict[str, Any]:
    """A request for two embeddings."""
    return {"model": service.manifest.name, "input": [b64(png(10)), b64(png(20))]}


def test_embeddings(service: Service, question: dict[str, Any]) -> None:
    """A list gets its embeddings in order, as numbers; nothing is counted in tokens."""
    reply = ask(service, question)

    assert (reply.status, reply.content_type) == (200, "application/json")
    assert json.loads(reply.body) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [10.0, 10.0]},
            {"object": "embedding", "index": 1, "embedding": [20.0, 20.0]},
        ],
        "model": service.manifest.name,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


def test_one_string_and_base64(service: Service, question: dict[str, Any]) -> None:
    """One string is a list of one; embeddings in base64 are float32, little-endian."""
    asked = {"input": b64(png(10)), "encoding_format": "base64", "dimensions": 2, "user": "me"}

    (row,) = json.loads(ask(service, question | asked).body)["data"]

    assert np.frombuffer(base64.b64decode(row["embedding"]), "<f4").tolist() == [10, 10]


@pytest.mark.parametrize(
    "write",
    [
        lambda file: base64.encodebytes(file).decode(),
        lambda file: base64.encodebytes(file).decode().replace("\n", "\r\n"),
        lambda file: base64.urlsafe_b64encode(file).decode(),
        lambda file: b64(file).rstrip("="),
        lambda file: "data:image/png;base64," + b64(file),
        lambda file: "DATA:image/png;name=a.png;BASE64," + b64(file).rstrip("="),
        lambda file: "data:;base64,\n" + base64.encodebytes(file).decode(),
    ],
)
@pytest.mark.parametrize("endpoint", ["openai", "own", "oip"])
def test_files_as_text(service: Service, write: Callable[[bytes], str], endpoint: str) -> None:
    """Wherever JSON holds files, base64 is read as people write it, and in data URIs."""
    text = write(png(10))
    assert len(text) % 4 or not text.isalnum()
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [text]}
    fields: dict[str, Any] = {
        "openai": {"model": service.manifest.name, "input": text},
        "own": {"images": [text]},
        "oip": {"inputs": [tensor]},
    }[endpoint]
    kind = OPENAI if endpoint == "openai" else "application/json"
    message = Message(json.dumps(fields).encode(), {"content-type": kind}, oip=endpoint == "oip")

    (reply,) = service.embed([message])

    assert reply.status == 200
    assert b"[10.0,10.0]" in reply.body


@pytest.mark.parametrize(
    ("change", "status", "code", "words"),
    [
        ({"model": "text-embedding-3-small"}, 404, "NotFound", 'the model here is called "'),
        ({"model": None}, 400, "InvalidRequest", '"model" must be a string: "'),
        ({"input": []}, 400, "InvalidRequest", '"input" must be an image file'),
        ({"input": None}, 400, "InvalidRequest", '"input" must be an image file'),
        ({"input": {"a": 1}}, 400, "InvalidRequest", '"input" must be an image file'),
        ({"input": [1, 2]}, 400, "InvalidImage", "entry 0: a file in JSON is a string"),
        ({"input": ["", b64(b"x")]}, 400, "InvalidImage", "entry 0: "),
        ({"input": "a cat!"}, 400, "InvalidImage", "entry 0: a file in JSON is not valid base64"),
        ({"input": "https://a/b.png"}, 400, "InvalidImage", "addresses are not followed"),
        ({"input": "FILE:///etc/passwd"}, 400, "InvalidImage", "addresses are not followed"),
        ({"input": "data:image/svg+xml,<svg/>"}, 400, "InvalidImage", "a base64 data URI"),
        ({"input": [""] * (MAX_IMAGES + 1)}, 413, "TooManyImages", "the limit is 4,096"),
        ({"encoding_format": "int8"}, 400, "InvalidRequest", "must be float or base64"),
        ({"dimensions": 256}, 400, "InvalidRequest", '"dimensions" must be 2'),
    ],
)
def test_refusals(
    service: Service,
    question: dict[str, Any],
    change: dict[str, Any],
    status: int,
    code: str,
    words: str,
) -> None:
    """Whatever is refused is refused in OpenAI's form, in a line that says what would be right."""
    reply = ask(service, question | change)

    error = json.loads(reply.body)["error"]
    assert reply.status == status
    assert words in error.pop("message")
    assert error == {"type": "invalid_request_error", "param": None, "code": code}


def test_the_rest_of_the_contract_holds(service: Service, question: dict[str, Any]) -> None:
    """Bodies that aren't JSON or are compressed, and other endpoints, are refused in this form."""
    message = Message(json.dumps(question).encode(), {"content-type": OPENAI})
    replies = [
        ask(service, b"{"),
        ask(service, b"[]"),
        ask(service, question, **{"content-encoding": "gzip"}),
        *service.reconstruct([message]),
        *service.decode([message]),
    ]

    assert [reply.status for reply in replies] == [400, 400, 415, 415, 415]
    assert all(set(json.loads(reply.body)) == {"error"} for reply in replies)


def test_one_bad_file_fails_the_request_alone(service: Service, question: dict[str, Any]) -> None:
    """A file that can't be read fails its request with its index, and no other request."""
    bad = {**question, "input": [b64(png(10)), b64(b"garbage")]}
    messages = [
        Message(json.dumps(fields).encode(), {"content-type": OPENAI}) for fields in (bad, question)
    ]

    failed, fine = service.embed(messages)

    assert json.loads(failed.body)["error"]["message"].startswith("entry 1: ")
    assert len(json.loads(fine.body)["data"]) == 2
