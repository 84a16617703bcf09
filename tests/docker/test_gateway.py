"""The gateway keeps the contract, asked from outside, with keys."""

import asyncio
import base64
import io
import json
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openai
import pytest
import requests
from PIL import Image
from schemathesis import Case
from schemathesis.specs.openapi.checks import unsupported_method

from tests.contract import CHECKS, CONTRACT

from .conftest import (
    KEYS,
    PORT,
    PROJECT,
    ROOMY,
    ROOT,
    Compose,
    inspect,
    kill,
    post,
    wait_until,
)

URL = f"http://127.0.0.1:{PORT}"
SITE, OTHER = "https://site.example", "https://other.example:8443"
STATIC = ("/", "/docs/", "/openapi.yaml")
BODY_LIMIT = 16 << 20


@pytest.fixture(scope="module", autouse=True)
def keyed(compose: Compose) -> Compose:
    """A gateway with two keys, and with limits too high to matter."""
    started = time.monotonic()
    compose.up(PINHOLE_API_KEY=", ".join(KEYS), PINHOLE_CORS=f"{SITE}, {OTHER}", **ROOMY)
    print(f"cold start to healthy: {time.monotonic() - started:.1f} s")
    return compose


def npy(array: np.ndarray) -> bytes:
    """An array as a file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def get(path: str, key: str | None = KEYS[0]) -> requests.Response:
    """GET, with a key unless told otherwise."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return requests.get(URL + path, headers=headers, timeout=10, allow_redirects=False)


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


@pytest.mark.parametrize("key", [None, "", "wrong", KEYS[0].upper(), KEYS[0] + "x"])
@pytest.mark.parametrize(
    "path",
    [
        "/predictions/embed",
        "/v1/embeddings",
        "/v2/models/embed/infer",
        "/v2/models/embed",
        "/map.json",
    ],
)
def test_no_key_no_answer(seven: bytes, path: str, key: str | None) -> None:
    """A missing or wrong key gets a 401 in the contract's form; a key's case matters."""
    is_get = path in ("/v2/models/embed", "/map.json")
    reply = get(path, key) if is_get else post(URL + path, seven, key)

    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    if path.endswith(("infer", "embeddings")):
        assert set(reply.json()) == {"error"}
    else:
        assert reply.json()["type"] == "Unauthorized"


@pytest.mark.parametrize("path", ["/ready", "/v2/health/ready", "/v2/models/decode/ready", *STATIC])
def test_open_to_all(path: str) -> None:
    """Readiness, the explorer and the documentation need no key."""
    assert get(path, key=None).status_code == 200


def test_every_path_of_the_contract_needs_a_key() -> None:
    """Without a key nothing of the contract answers but readiness; other methods are refused."""
    open_to_all = re.compile(r"/ready|/v2/health/(live|ready)|/v2/models/embed/ready")
    paths = [path.replace("{endpoint}", "embed") for path in CONTRACT.raw_schema["paths"]]
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE"):
            status = requests.request(method, URL + path, timeout=10).status_code
            if method == "GET" and open_to_all.fullmatch(path):
                assert status == 200, (method, path)
            else:
                assert status in (401, 405), (method, path)


@pytest.mark.parametrize(
    "path", ["/models", "/models/embed", "/metrics", "/swap", "/alive", "/ping", "/sized/map.json"]
)
def test_inner_paths_are_not_there(path: str) -> None:
    """What a server has for its launcher or for Prometheus isn't passed on, key or no key."""
    for key in (None, KEYS[0]):
        assert get(path, key).status_code == 404
        assert requests.post(URL + path, timeout=10).status_code in (404, 405)


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
    assert get("/ready").json() == {"ready": True, "reason": None}
    assert get("/map.json").json()["digest"] == digest
    assert get("/openapi.yaml").content == (ROOT / "serve" / "openapi.yaml").read_bytes()


@pytest.mark.parametrize("path", ["/", "/docs/", "/nope.js", "/ready"])
def test_security_headers(path: str) -> None:
    """Pages and errors alike carry the security headers."""
    headers = get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Server"] == "nginx"


def test_explorer_is_whole() -> None:
    """The explorer's page and every file it names are served."""
    page = get("/", key=None).text
    names = re.findall(r'(?:src|href)="([^":]+)"', page)
    files = {name: get(f"/{name}", key=None) for name in names}

    assert {reply.status_code for reply in files.values()} == {200}


def test_docs_need_nobody_else() -> None:
    """The page of the API has its viewer from the gateway, and names no other host."""
    page = get("/docs/").text

    assert "swagger-ui-bundle.js" in page
    assert "://" not in page
    assert get("/docs/swagger-ui-bundle.js").status_code == 200


def test_keys_are_not_logged(compose: Compose) -> None:
    """The log has the number of a caller's key, and never the key."""
    time.sleep(1.5)  # the log is written every second
    log = compose.log("gateway")

    assert '"caller":"key1"' in log
    assert not [key for key in KEYS if key in log]


def test_only_the_gateway_is_published(compose: Compose) -> None:
    """Only the gateway's port is published, on loopback; the service's ports are not."""
    (service,), (gateway,) = compose.containers("service"), compose.containers("gateway")
    bound = json.loads(inspect(gateway, "{{json .HostConfig.PortBindings}}"))

    assert inspect(service, "{{json .HostConfig.PortBindings}}") in ("{}", "null")
    assert bound == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(PORT)}]}
    for port in (PORT + 1, PORT + 2, PORT + 3):
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}/ready", timeout=2)


@pytest.mark.parametrize("port", [8081, 8082, 8083])
def test_private_ports_are_for_the_inside(compose: Compose, port: int) -> None:
    """A container of another network reaches no private port, and the gateway only 8083."""
    (service,) = compose.containers("service")
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = f"http://{inspect(service, template)}:{port}/"
    ask = ["curl", "-s", "-o", "/dev/null", "--max-time", "2", address]

    network = f"{PROJECT}_outside"
    run = ["docker", "run", "--rm", "--network", network, "--entrypoint", "curl", "pinhole-gateway"]
    outside = subprocess.run([*run, *ask[1:]], timeout=60)
    inside = compose.run("exec", "gateway", *ask, check=False)

    assert outside.returncode != 0
    assert (inside.returncode == 0) == (port == 8083)


@pytest.mark.parametrize("service", ["service", "gateway"])
def test_containers_are_confined(compose: Compose, service: str) -> None:
    """A container has no root user, no capability and no place to write but /tmp."""
    (container,) = compose.containers(service)
    written = compose.run("exec", service, "sh", "-c", "id -u; touch /x || true", check=False)

    assert written.stdout.strip() == "10001"
    assert "Read-only file system" in written.stderr
    assert inspect(container, "{{.HostConfig.CapDrop}}") == "[ALL]"
    assert inspect(container, "{{.HostConfig.SecurityOpt}}") == "[no-new-privileges:true]"
    assert inspect(container, "{{.State.Health.Status}}") == "healthy"


def test_no_build_tools_are_left(compose: Compose) -> None:
    """The image that serves has neither pip nor a compiler."""
    found = compose.run("exec", "service", "sh", "-c", "which pip gcc git || true").stdout

    assert found == ""


def test_flood_of_one_key_leaves_the_other_served(seven: bytes) -> None:
    """While one caller floods the service with large images, another caller is answered."""
    file = io.BytesIO()
    Image.new("L", (3_000, 3_000)).save(file, "PNG")
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            post(f"{URL}/predictions/embed", file.getvalue(), KEYS[0])

    with ThreadPoolExecutor(40) as pool:
        floods = [pool.submit(flood) for _ in range(40)]
        time.sleep(2)
        replies = [post(f"{URL}/predictions/embed", seven, KEYS[1]) for _ in range(5)]
        over.set()
    for call in floods:
        call.result()

    assert [reply.status_code for reply in replies] == [200] * 5


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


def call(method: str, path: str, origin: str, **headers: str) -> requests.Response:
    """What a browser sends for a page of an origin."""
    sent = {"Origin": origin, **{name.replace("_", "-"): each for name, each in headers.items()}}
    body = b"broken" if method == "POST" else None
    return requests.request(method, URL + path, data=body, headers=sent, timeout=30)


@pytest.mark.parametrize("path", ["/predictions/embed", "/v1/embeddings", "/v2", "/ready", "/nope"])
@pytest.mark.parametrize("origin", [SITE, OTHER])
def test_preflight_needs_no_key(path: str, origin: str) -> None:
    """A page of a listed origin may send a key and any other header, to every path."""
    names = "authorization,content-type,x-stainless-os"
    asks = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": names}
    reply = call("OPTIONS", path, origin, **asks)

    assert (reply.status_code, reply.content) == (204, b"")
    assert reply.headers["Access-Control-Allow-Origin"] == origin
    assert reply.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
    assert reply.headers["Access-Control-Allow-Headers"] == names
    assert reply.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("POST", "/predictions/embed", KEYS[0], 400),
        ("POST", "/predictions/embed", "wrong", 401),
        ("GET", "/predictions/embed", KEYS[0], 405),
        ("GET", "/map.json", KEYS[0], 200),
        ("GET", "/ready", "", 200),
        ("GET", "/nope", "", 404),
        ("GET", "/", "", 200),
    ],
)
def test_pages_of_listed_origins_read_replies(
    method: str, path: str, key: str, status: int
) -> None:
    """Whatever the reply, it may be read, all headers included; no page of another origin may."""
    told = call(method, path, SITE, Authorization=f"Bearer {key}")
    untold = call(method, path, SITE + ".evil.example", Authorization=f"Bearer {key}")

    assert (told.status_code, untold.status_code) == (status, status)
    assert told.headers["Access-Control-Allow-Origin"] == SITE
    assert told.headers["Access-Control-Expose-Headers"] == "*"
    assert told.headers["Vary"] == "Origin"
    assert not [name for name in untold.headers if name.startswith("Access-Control")]


def test_preflight_of_an_unlisted_origin_is_a_wrong_method() -> None:
    """It gets what OPTIONS gets of anybody."""
    asks = {"Access_Control_Request_Method": "POST"}
    reply = call("OPTIONS", "/predictions/embed", "https://evil.example", **asks)

    assert reply.status_code == 405
    assert not [name for name in reply.headers if name.startswith("Access-Control")]
