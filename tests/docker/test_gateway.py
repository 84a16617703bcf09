"""The gateway keeps the contract, asked from outside, with keys."""

import asyncio
import base64
import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openai
import pytest
import requests
from schemathesis import Case
from schemathesis.specs.openapi.checks import unsupported_method

from tests.contract import CHECKS, CONTRACT

from ..e2e.conftest import wait_until
from .conftest import (
    KEYS,
    ROOT,
    URL,
    Compose,
    get,
    kill,
    post,
)

pytestmark = pytest.mark.usefixtures("keyed")

BODY_LIMIT = 16 << 20


def npy(array: np.ndarray) -> bytes:
    """An array as a file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("key", KEYS)
def test_every_endpoint_with_either_key(seven: bytes, key: str) -> None:
    """Both keys open every endpoint, so that a key can be replaced without a pause."""
    embedded = post(f"{URL}/predictions/embed", seven, key)
    remembered = post(f"{URL}/predictions/reconstruct", seven, key)
    vector = json.dumps({"embeddings": [embedded.json()["embedding"]]}).encode()
    decoded = post(f"{URL}/predictions/decode", vector, key, "application/json")
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1]}
    tensor["data"] = [base64.b64encode(seven).decode()]
    question = json.dumps({"inputs": [tensor]}).encode()
    inferred = post(f"{URL}/v2/models/embed/infer", question, key, "application/json")

    assert len(embedded.json()["embedding"]) == 2
    assert 0 < remembered.json()["mse"] < 0.2
    assert decoded.json()["images"][0] == remembered.json()["reconstruction"]
    assert inferred.json()["outputs"][0]["data"] == pytest.approx(embedded.json()["embedding"])


@pytest.mark.parametrize("encoding", ["float", openai.omit])
def test_stock_openai_client(seven: bytes, encoding: Any) -> None:
    """OpenAI's client, unmodified, gets either server's embeddings, and its kinds of errors."""
    text = base64.b64encode(seven).decode()
    expected = post(f"{URL}/predictions/embed", seven, KEYS[0]).json()["embedding"]

    with openai.OpenAI(base_url=f"{URL}/v1", api_key=KEYS[0]) as client:
        embed = client.embeddings.create
        reply = embed(model="mnist", input=[text] * 2, encoding_format=encoding)
        with pytest.raises(openai.NotFoundError, match="no such model"):
            embed(model="other", input=text)
        with pytest.raises(openai.BadRequestError, match="entry 0: addresses are not followed"):
            embed(model="mnist", input="https://example.org/a.png")
    with (
        openai.OpenAI(base_url=f"{URL}/v1", api_key="wrong") as stranger,
        pytest.raises(openai.AuthenticationError, match="send Authorization: Bearer"),
    ):
        stranger.embeddings.create(model="mnist", input=text)

    assert [row.embedding for row in reply.data] == [pytest.approx(expected)] * 2


def test_stock_openai_client_in_asyncio(seven: bytes) -> None:
    """OpenAI's client for asyncio works likewise, many requests at a time."""
    text = base64.b64encode(seven).decode()

    async def embed_many() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEYS[1]) as client:
            calls = [client.embeddings.create(model="mnist", input=text) for _ in range(9)]
            return [reply.data[0].embedding for reply in await asyncio.gather(*calls)]

    answers = asyncio.run(embed_many())

    assert len(answers[0]) == 2
    assert answers == [pytest.approx(answers[0])] * 9


def test_a_request_can_be_followed(compose: Compose) -> None:
    """The caller's id is in the reply, in the gateway's log and in the service's."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"Authorization": f"Bearer {KEYS[0]}", "Content-Type": "image/png"}
    headers |= {"X-Request-Id": "order-66", "traceparent": trace}
    reply = requests.post(f"{URL}/predictions/embed", b"broken", headers=headers, timeout=10)

    assert reply.headers["X-Request-Id"] == "order-66"
    told = f"replies=order-66:400 traces={trace}"
    assert wait_until(lambda: told in compose.log("service"), 10)
    told = f'"request_id":"order-66","traceparent":"{trace}"'
    assert wait_until(lambda: told in compose.log("gateway"), 10)


@CONTRACT.parametrize()
def test_contract(case: Case) -> None:
    """Whatever is sent, the answer is one that openapi.yaml describes.

    A request that breaks the schema need not be refused: an entry of a list that isn't even a
    string fails alone, in a 200, like an image that can't be read.
    """
    case.call_and_validate(
        base_url=URL,
        headers={"Authorization": f"Bearer {KEYS[0]}"},
        checks=[*CHECKS, unsupported_method],
    )


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [BODY_LIMIT + 1, BODY_LIMIT + 100_000, 30 << 20])
def test_oversized_body(size: int, chunked: bool) -> None:
    """A body over the limit gets a 413 that names the limit, with Content-Length or without."""
    body = iter([bytes(size)]) if chunked else bytes(size)
    headers = {"Authorization": f"Bearer {KEYS[0]}", "Content-Type": "image/png"}
    reply = requests.post(f"{URL}/predictions/embed", body, headers=headers, timeout=30)

    assert reply.status_code == 413
    assert reply.json()["type"] == "PayloadTooLarge"
    assert "16" in reply.json()["message"]


def test_body_at_the_limit() -> None:
    """An array of just under 16 MiB is read, and refused for its number of images alone."""
    array = npy(np.zeros((BODY_LIMIT // 784 - 1, 1, 28, 28), np.uint8))
    reply = post(f"{URL}/predictions/embed", array, KEYS[0], "application/x-npy")

    assert (reply.status_code, reply.json()["type"]) == (413, "TooManyImages")


def test_largest_reply() -> None:
    """A reply of 4,096 reconstructions passes, with the scores of all of them in headers."""
    array = np.zeros((4_096, 1, 28, 28), np.uint8)
    headers = {"Authorization": f"Bearer {KEYS[0]}", "Accept": "application/x-npy"}
    headers["Content-Type"] = "application/x-npy"
    reply = requests.post(f"{URL}/predictions/reconstruct", npy(array), headers=headers, timeout=60)

    assert reply.status_code == 200, reply.text[:200]
    assert np.load(io.BytesIO(reply.content)).shape == array.shape
    assert reply.headers["X-Mse"].count(",") == reply.headers["X-Percentile"].count(",") == 4_095


@pytest.mark.parametrize("chunked", [False, True])
def test_handlers_own_words_pass(chunked: bool) -> None:
    """A refusal by the handler passes the gateway unchanged."""
    body = iter([b"garbage"]) if chunked else b"garbage"
    headers = {"Authorization": f"Bearer {KEYS[0]}", "Content-Type": "image/png"}
    reply = requests.post(f"{URL}/predictions/embed", body, headers=headers, timeout=10)

    assert (reply.status_code, reply.json()["type"]) == (400, "InvalidImage")
    assert "7 bytes" in reply.json()["message"]
    assert len(reply.headers["X-Model-Digest"]) == 64


@pytest.mark.parametrize("disposition", ["form-data", 'form-data; name=""'])
def test_form_that_cannot_be_taken_apart(disposition: str) -> None:
    """A form whose part has no name gets a 400, where TorchServe itself would answer 500."""
    form = f"--B\r\nContent-Disposition: {disposition}\r\n\r\nx\r\n--B--\r\n".encode()
    kind = "multipart/form-data; boundary=B"
    reply = post(f"{URL}/predictions/embed", form, KEYS[0], kind)

    assert (reply.status_code, reply.json()["type"]) == (400, "InvalidRequest")
    assert "the form" in reply.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nope", 404, None),
        ("GET", "/metrics", 404, None),
        ("GET", "/models", 404, None),
        ("GET", "/v2/models/nope", 404, None),
        ("GET", "/sized/predictions/embed", 404, None),
        ("GET", "/unsized/predictions/embed", 404, None),
        ("GET", "/predictions/embed", 405, "POST"),
        ("DELETE", "/v2/models/embed", 405, "GET, HEAD"),
        ("POST", "/swap", 405, "GET, HEAD"),
        ("POST", "/predictions/embedd", 405, "GET, HEAD"),
    ],
)
def test_wrong_path_or_method(method: str, path: str, status: int, allow: str | None) -> None:
    """A path that the contract lacks gets 404, and a wrong method 405, swaps and metrics too."""
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    reply = requests.request(method, URL + path, headers=headers, timeout=10)

    assert reply.status_code == status
    assert reply.json()["code"] == status
    assert reply.headers.get("Allow") == allow


def test_metadata_and_map() -> None:
    """The launcher's metadata, map and readiness pass the gateway, as does openapi.yaml."""
    model = get("/v2/models/embed").json()
    digest = model["digest"]

    assert model["limits"]["body_bytes"] == BODY_LIMIT
    assert get("/v2").json()["name"] == "pinhole"
    # The large requests of earlier tests may have kept the only worker of an endpoint too long.
    assert wait_until(lambda: get("/ready").ok, 20)
    assert get("/ready").json() == {"ready": True, "reason": None}
    assert get("/map.json").json()["digest"] == digest
    assert get("/openapi.yaml").content == (ROOT / "serve" / "openapi.yaml").read_bytes()


def test_explorer_is_whole() -> None:
    """The explorer's page and every file it names are served."""
    page = get("/", key=None).text
    names = re.findall(r'(?:src|href)="([^":]+)"', page)
    files = {name: get(f"/{name}", key=None) for name in names}

    assert {reply.status_code for reply in files.values()} == {200}


def test_curls_own_type_is_no_outage(seven: bytes) -> None:
    """A file sent as a web form is refused by the handlers; TorchServe doesn't try to parse it."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    headers["Authorization"] = f"Bearer {KEYS[0]}"
    reply = requests.post(f"{URL}/predictions/embed", seven, headers=headers, timeout=30)

    assert (reply.status_code, reply.json()["type"]) == (415, "UnsupportedMediaType")


def test_docs_need_nobody_else() -> None:
    """The page of the API has its viewer from the gateway, and names no other host."""
    page = get("/docs/").text

    assert "swagger-ui-bundle.js" in page
    assert "://" not in page
    assert get("/docs/swagger-ui-bundle.js").status_code == 200


def test_dead_worker_is_no_fault_of_the_callers(compose: Compose, seven: bytes) -> None:
    """While all that answers has died, forms and files get 503 with Retry-After, and later 200."""
    seen, over = set(), threading.Event()
    headers = {"Authorization": f"Bearer {KEYS[0]}"}

    def embed(form: bool) -> None:
        while not over.is_set():
            if form:
                reply = requests.post(
                    f"{URL}/predictions/embed", files={"a": seven}, headers=headers, timeout=30
                )
            else:
                reply = post(f"{URL}/predictions/embed", seven, KEYS[0])
            if reply.status_code == 503:
                assert reply.headers["Retry-After"] == "1"
            seen.add((form, reply.status_code))

    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(embed, index % 2 == 0) for index in range(8)]
        assert wait_until(lambda: len(seen) == 2, 20)
        for _ in range(5):  # each time, only what is being answered fails
            kill_all_that_answers(compose)
            if wait_until(lambda: len(seen) == 4, 10):
                break
            wait_until(lambda: get("/ready").ok, 60)
        over.set()
    for call in calls:
        call.result()

    assert seen == {(False, 200), (True, 200), (False, 503), (True, 503)}
    assert wait_until(lambda: get("/ready").ok, 60)


def kill_all_that_answers(compose: Compose) -> None:
    """Kill the only worker of the endpoint embed: with granian, that is the whole process."""
    if compose.server == "granian":
        kill(compose.containers("service")[0])
    else:
        code = (
            "import json, os, pathlib; from serve.torchserve.sockets import ask;"
            "(path,) = pathlib.Path('/tmp').rglob('management.sock');"
            "m = json.loads(ask(path, 'GET', '/models/embed', 5)[1]);"
            "os.kill(int(m[0]['workers'][0]['pid']), 9)"
        )
        compose.run("exec", "service", "python", "-c", code)
