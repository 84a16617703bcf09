"""Every kind of reply is what serve/openapi.yaml says it is."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import requests
import yaml

from serve.bundle.errors import RequestError
from serve.bundle.limits import MAX_EMBEDDING, MAX_IMAGES
from serve.bundle.manifest import Bundle
from serve.endpoints import ENDPOINTS
from serve.launcher.metadata import pages
from serve.launcher.private import Answers, PrivateServer
from serve.service import Service
from serve.wire.media import OPENAI
from serve.wire.message import Message
from serve.wire.npy import write_npy

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
    """Follow a reference to the node that it names."""
    while "$ref" in node:
        target: Any = CONTRACT
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        node = target
    return node


def check(body: Any, schema: dict[str, Any]) -> None:
    """Raise ValidationError unless ``body`` follows ``schema``."""
    jsonschema.validate(body, {**schema, "components": CONTRACT["components"]})


PNG, NPY = {"content-type": "image/png"}, {"content-type": "application/x-npy"}
STRIPES = np.tile(np.array([0, 255], np.uint8), (1, 28, 14))  # an outlier of the fake engine
IMAGES = [  # (request, status of its reply)
    (Message(GOOD, PNG), 200),
    (Message(GOOD, {**PNG, "accept": "text/html"}), 406),
    (Message(GOOD, {**PNG, "accept": "application/x-npy"}), 200),
    (Message(GOOD, {**PNG, "x-seen": "true"}), 200),
    (Message(body_of({"images": [b64(GOOD), b64(BAD)]}), {**JSON, "x-seen": "true"}), 200),
    (Message(GOOD, {**PNG, "x-pictures": "false"}), 200),
    (Message(body_of({"images": [b64(GOOD), b64(BAD)]}), {**JSON, "x-pictures": "false"}), 200),
    (Message(BAD, PNG), 400),
    (Message(b"", {"content-type": "text/plain"}), 415),
    (Message(b"", {"content-type": "multipart/form-data"}, parts=(GOOD, BAD)), 200),
    (Message(b"{", JSON), 400),
    (Message(body_of({"images": [b64(GOOD), b64(BAD), 3]}), JSON), 200),
    (Message(body_of({"images": []}), JSON), 200),
    (Message(body_of({"images": [""] * (MAX_IMAGES + 1)}), JSON), 413),
    (Message(body_of({"images": [b64(BAD)]}), JSON), 200),
    (Message(body_of({"images": [b64(BAD)]}), {**JSON, "accept": "application/x-npy"}), 400),
    (Message(body_of({"images": []}), {**JSON, "accept": "application/x-npy"}), 200),
    (Message(write_npy(np.zeros((2, 28, 28), np.uint8)), NPY), 200),
    (Message(write_npy(np.zeros((2, 9, 9), np.uint8)), NPY), 400),
]
PICTURES = [
    (Message(GOOD, {**PNG, "accept": "image/png"}), 200),
    (Message(body_of({"images": [b64(GOOD), "", ""]}), {**JSON, "accept": "image/png"}), 200),
    (Message(body_of({"images": ["", ""]}), {**JSON, "accept": "image/png"}), 400),
    (Message(write_npy(STRIPES), {**NPY, "accept": "application/x-npy"}), 200),
]
EMBEDDINGS = [
    (Message(body_of({"embeddings": [[1, 2], [3], [MAX_EMBEDDING * 2, 0]]}), JSON), 200),
    (Message(body_of({"embeddings": [[1, 2], [3]]}), {**JSON, "accept": "image/png"}), 200),
    (Message(body_of({"embeddings": []}), {**JSON, "accept": "image/png"}), 400),
    (Message(body_of({"embeddings": [[3]]}), {**JSON, "accept": "application/x-npy"}), 400),
    (Message(body_of({"embeddings": [[1, 2]]}), {**JSON, "accept": "text/html"}), 406),
    (Message(GOOD, PNG), 415),
]

FILE = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [b64(GOOD)]}
VECTOR = {"name": "embeddings", "datatype": "FP32"}


@pytest.mark.parametrize(
    ("endpoint", "message", "status"),
    [
        (endpoint, message, status)
        for endpoint, messages in {
            "embed": IMAGES,
            "reconstruct": IMAGES + PICTURES,
            "decode": EMBEDDINGS,
        }.items()
        for message, status in messages
    ],
)
def test_replies_follow_the_contract(
    service: Service, endpoint: str, message: Message, status: int
) -> None:
    """The status, content type, headers and body of every reply are what the contract says."""
    (reply,) = service.operation(endpoint)([message])

    assert reply.status == status
    asked = message.headers.get("accept", "application/json")
    responses = CONTRACT["paths"][f"/predictions/{endpoint}"]["post"]["responses"]
    assert set(responses["200"]["content"]) == set(ENDPOINTS[endpoint].replies)
    if status == 200:
        assert reply.content_type == asked
    response = resolve(responses.get(str(reply.status), responses["default"]))
    content = response["content"][reply.content_type]
    if reply.content_type == "application/json":
        check(json.loads(reply.body), content["schema"])
    for name, value in (service.headers | reply.headers).items():
        check(value, resolve(response["headers"][name])["schema"])


@pytest.mark.parametrize(
    ("endpoint", "tensor", "status"),
    [
        ("embed", FILE, 200),
        ("reconstruct", FILE, 200),
        ("decode", {**VECTOR, "shape": [1, 2], "data": [1, 2]}, 200),
        ("decode", {**VECTOR, "shape": [1, 3], "data": [1, 2, 3]}, 400),
    ],
)
def test_oip_replies_follow_the_contract(
    service: Service, endpoint: str, tensor: dict[str, Any], status: int
) -> None:
    """An OIP request and its reply both follow the contract's schemas."""
    question = {"id": "mine", "inputs": [tensor]}
    operation = CONTRACT["paths"]["/v2/models/{endpoint}/infer"]["post"]
    check(question, operation["requestBody"]["content"]["application/json"]["schema"])

    (reply,) = service.operation(endpoint)([Message(body_of(question), {}, oip=True)])

    assert reply.status == status
    response = operation["responses"].get(str(reply.status), operation["responses"]["default"])
    check(json.loads(reply.body), response["content"]["application/json"]["schema"])
    for name, value in (service.headers | reply.headers).items():
        check(value, resolve(response["headers"][name])["schema"])


@pytest.mark.parametrize(
    ("change", "status"), [({}, 200), ({"encoding_format": "base64"}, 200), ({"model": "x"}, 404)]
)
def test_openai_replies_follow_the_contract(
    service: Service, change: dict[str, Any], status: int
) -> None:
    """A request in OpenAI's form and its reply both follow the contract's schemas."""
    question = {"model": service.manifest.name, "input": [b64(GOOD)], **change}
    operation = CONTRACT["paths"]["/v1/embeddings"]["post"]
    check(question, operation["requestBody"]["content"]["application/json"]["schema"])

    (reply,) = service.embed([Message(body_of(question), {"content-type": OPENAI})])

    assert reply.status == status
    response = operation["responses"].get(str(reply.status), operation["responses"]["default"])
    check(json.loads(reply.body), response["content"]["application/json"]["schema"])


def test_raw_oip_reply_follows_the_contract(service: Service) -> None:
    """A raw OIP reply has the contract's headers, and its JSON part follows the schema."""
    question = {"inputs": [FILE], "parameters": {"binary_data_output": True}}

    (reply,) = service.embed([Message(body_of(question), {}, oip=True)])

    response = CONTRACT["paths"]["/v2/models/{endpoint}/infer"]["post"]["responses"]["200"]
    length = int(reply.headers["Inference-Header-Content-Length"])
    assert reply.content_type in response["content"]
    assert set(reply.headers) <= set(response["headers"])
    schema = response["content"]["application/json"]["schema"]
    check(json.loads(reply.body[:length]), schema)


def test_contract_knows_every_error() -> None:
    """The contract lists every type of error that a handler can answer with."""
    known = CONTRACT["components"]["schemas"]["Error"]["properties"]["type"]["enum"]

    assert {error.__name__ for error in RequestError.__subclasses__()} <= set(known)


def test_what_is_told_follows_the_contract(shipped_bundle: Bundle) -> None:
    """Every page of the private port has the path and the form that the contract states."""
    told = {path: json.loads(page) for path, page in pages(shipped_bundle, "fp32").items()}
    for path, page in told.items():
        name = re.sub("|".join(ENDPOINTS), "{endpoint}", path)
        answer = CONTRACT["paths"][name]["get"]["responses"]["200"]
        check(page, answer["content"]["application/json"]["schema"])
    count = len(told["/map.json"]["labels"])
    assert count == len(told["/map.json"]["embeddings"]) == 10_000


@pytest.mark.parametrize("reason", [None, "embed: 0 of 1 workers ready"])
def test_readiness_follows_the_contract(reason: str | None) -> None:
    """/ready answers 200 or 503 as the contract says, /live always 200, and other paths 404."""
    answers = Answers(lambda: reason, dict, bytes, lambda folder: {"bundle": folder})
    server = PrivateServer("127.0.0.1", 0, answers)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    status = "503" if reason else "200"
    try:
        for path in ("/ready", "/v2/health/ready", "/v2/models/{endpoint}/ready"):
            reply = requests.get(url + path.replace("{endpoint}", "embed"), timeout=10)
            answer = resolve(CONTRACT["paths"][path]["get"]["responses"][status])
            assert (str(reply.status_code), reply.json()["ready"]) == (status, reason is None)
            check(reply.json(), answer["content"]["application/json"]["schema"])
        assert requests.get(url + "/v2/health/live", timeout=10).json() == {"live": True}
        assert requests.head(url + "/ready", timeout=10).status_code == int(status)
        for path in ("/", "/v2/models/other", "/swap"):
            reply = requests.get(url + path, timeout=10)
            assert reply.status_code == 404
            check(reply.json(), {"$ref": "#/components/schemas/Error"})
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ('{"bundle": "/b"}', "application/json", 200),
        ('{"bundle": "/b"}', "text/plain", 415),  # what a web page may send unasked
        ('{"bundle": 3}', "application/json", 400),
        ("{", "application/json", 400),
    ],
)
def test_swaps_are_asked_for_in_json(body: str, content_type: str, status: int) -> None:
    """A swap is refused unless it is asked for in JSON, which a web page may not send."""
    server = PrivateServer(
        "127.0.0.1", 0, Answers(lambda: None, dict, bytes, lambda folder: {"bundle": folder})
    )
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/swap"
        reply = requests.post(url, body, headers={"Content-Type": content_type}, timeout=10)
        assert reply.status_code == status
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("host", "caller"), [("evil.example", "127.0.0.1"), ("127.0.0.1", "192.0.2.7")]
)
def test_swaps_are_for_this_host(monkeypatch: pytest.MonkeyPatch, host: str, caller: str) -> None:
    """Neither a name that was rebound to loopback nor another host's address may swap."""
    accept = PrivateServer.get_request
    monkeypatch.setattr(PrivateServer, "get_request", lambda own: (accept(own)[0], (caller, 9)))
    answers = Answers(lambda: None, dict, bytes, lambda folder: pytest.fail("swapped"))
    server = PrivateServer("127.0.0.1", 0, answers)
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/swap"
        reply = requests.post(url, '{"bundle": "/b"}', headers={**JSON, "Host": host}, timeout=10)
    finally:
        server.stop()

    assert (reply.status_code, reply.json()["type"]) == (403, "Forbidden")
