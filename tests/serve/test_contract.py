"""Every kind of reply is what serve/openapi.yaml says it is."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml

from serve.bundle import ENDPOINTS
from serve.errors import RequestError
from serve.limits import MAX_EMBEDDING, MAX_IMAGES
from serve.service import Service
from serve.wire.npy import write_npy
from serve.wire.requests import Message

from .conftest import b64, png

CONTRACT = yaml.safe_load(
    (Path(__file__).parent.parent.parent / "serve" / "openapi.yaml").read_text()
)
JSON = {"content-type": "application/json"}
GOOD, BAD = png(10), b"garbage"


def body_of(fields: dict[str, Any]) -> bytes:
    """A JSON body."""
    return json.dumps(fields).encode()


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """What a reference stands for."""
    while "$ref" in node:
        target: Any = CONTRACT
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        node = target
    return node


def check(body: Any, schema: dict[str, Any]) -> None:
    """Raise ValidationError unless ``body`` follows ``schema``."""
    jsonschema.validate(body, {**schema, "components": CONTRACT["components"]})


IMAGES = [
    Message(GOOD, {"content-type": "image/png"}),
    Message(GOOD, {"content-type": "image/png", "accept": "image/png"}),
    Message(BAD, {"content-type": "image/png"}),
    Message(b"", {"content-type": "text/plain"}),
    Message(b"", {"content-type": "multipart/form-data"}, parts=(GOOD, BAD)),
    Message(b"{", JSON),
    Message(body_of({"images": [b64(GOOD), b64(BAD), 3]}), JSON),
    Message(body_of({"images": []}), JSON),
    Message(body_of({"images": [""] * (MAX_IMAGES + 1)}), JSON),
    Message(body_of({"images": [b64(GOOD), b64(BAD)]}), {**JSON, "accept": "application/x-npy"}),
    Message(write_npy(np.zeros((2, 28, 28), np.uint8)), {"content-type": "application/x-npy"}),
    Message(write_npy(np.zeros((2, 9, 9), np.uint8)), {"content-type": "application/x-npy"}),
]
EMBEDDINGS = [
    Message(body_of({"embeddings": [[1, 2], [3], [MAX_EMBEDDING * 2, 0]]}), JSON),
    Message(body_of({"embeddings": [[1, 2], [3]]}), {**JSON, "accept": "image/png"}),
    Message(body_of({"embeddings": [[3]]}), {**JSON, "accept": "application/x-npy"}),
    Message(GOOD, {"content-type": "image/png"}),
]


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [(e, m) for e in ENDPOINTS for m in (EMBEDDINGS if e == "decode" else IMAGES)],
)
def test_replies_follow_the_contract(service: Service, endpoint: str, message: Message) -> None:
    """Status, content type, headers and body."""
    (reply,) = service.operation(endpoint)([message])

    responses = CONTRACT["paths"][f"/predictions/{endpoint}"]["post"]["responses"]
    response = resolve(responses.get(str(reply.status), responses["default"]))
    content = response["content"][reply.content_type]
    if reply.content_type == "application/json":
        check(json.loads(reply.body), content["schema"])
    if reply.status == 200:
        for name, value in (service.headers | reply.headers).items():
            check(value, resolve(response["headers"][name])["schema"])


@pytest.mark.parametrize(
    ("endpoint", "tensor"),
    [
        ("embed", {"name": "images", "datatype": "BYTES", "shape": [1], "data": [b64(GOOD)]}),
        ("reconstruct", {"name": "images", "datatype": "BYTES", "shape": [1], "data": [b64(GOOD)]}),
        ("decode", {"name": "embeddings", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}),
        ("decode", {"name": "embeddings", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}),
    ],
)
def test_oip_replies_follow_the_contract(
    service: Service, endpoint: str, tensor: dict[str, Any]
) -> None:
    """Requests as well as replies."""
    question = {"id": "mine", "inputs": [tensor]}
    operation = CONTRACT["paths"]["/v2/models/{endpoint}/infer"]["post"]
    check(question, operation["requestBody"]["content"]["application/json"]["schema"])

    (reply,) = service.operation(endpoint)([Message(body_of(question), {}, oip=True)])

    response = operation["responses"].get(str(reply.status), operation["responses"]["default"])
    check(json.loads(reply.body), response["content"]["application/json"]["schema"])


def test_contract_knows_every_error() -> None:
    """Each error a handler can answer with is one of the contract's types."""
    known = CONTRACT["components"]["schemas"]["Error"]["properties"]["type"]["enum"]

    assert {error.__name__ for error in RequestError.__subclasses__()} <= set(known)
