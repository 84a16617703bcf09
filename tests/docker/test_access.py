"""Who gets through the gateway, and what of the deployment can be reached at all."""

import io
import json
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.contract import CONTRACT

from .conftest import (
    KEYS,
    OTHER,
    PORT,
    PROJECT,
    SITE,
    URL,
    Compose,
    get,
    inspect,
    post,
)

pytestmark = pytest.mark.usefixtures("keyed")

STATIC = ("/", "/docs/", "/openapi.yaml")


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


@pytest.mark.parametrize("path", ["/", "/docs/", "/nope.js", "/ready"])
def test_security_headers(path: str) -> None:
    """Pages and errors alike carry the security headers."""
    headers = get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Server"] == "nginx"


def test_keys_are_not_logged(compose: Compose) -> None:
    """The log has the number of a caller's key, and never the key."""
    get("/map.json")
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

    assert outside.returncode in (7, 28)  # curl found nothing there, or got no answer
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
    look = "command -v python; for name in pip gcc git; do command -v $name; done; true"
    found = compose.run("exec", "service", "sh", "-c", look).stdout

    assert [Path(line).name for line in found.splitlines()] == ["python"]


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
