"""The gateway alone, in front of three replicas that do as they are told (replica.py)."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from ...e2e.conftest import wait_until
from ..conftest import KEYS, docker

NETWORK, NAMES, PORT = "pinhole-trouble", ("one", "two", "three"), 18_081
URL = f"http://127.0.0.1:{PORT}/predictions/embed"
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module", autouse=True)
def replicas() -> Iterator[None]:
    """Three replicas in a network of their own, by the name that the gateway looks for."""
    remove(*NAMES)
    subprocess.run(["docker", "network", "rm", NETWORK], capture_output=True, timeout=60)
    docker("network", "create", NETWORK)
    script = f"{Path(__file__).parent / 'replica.py'}:/replica.py:ro"
    run = ["run", "--detach", "--network", NETWORK, "--network-alias", "service"]
    image = ["--volume", script, "--entrypoint", "python", "pinhole-granian", "/replica.py"]
    for name in NAMES:
        docker(*run, "--name", container(name), *image, name)
    yield
    remove(*NAMES)
    docker("network", "rm", NETWORK)


@contextmanager
def gateway(proxy: Path | None = None, **variables: str) -> Iterator[None]:
    """A gateway with these variables, and perhaps with another proxy.conf."""
    remove("gateway")
    run = ["run", "--detach", "--network", NETWORK, "--name", container("gateway")]
    for name, value in ({"PINHOLE_RATE": "10000"} | variables).items():
        run += ["--env", f"{name}={value}"]
    if proxy is not None:
        run += ["--volume", f"{proxy}:/etc/nginx/proxy.conf:ro"]
    run += ["--publish", f"127.0.0.1:{PORT}:8080"]
    docker(*run, "pinhole-gateway")
    try:
        assert wait_until(is_up, 20)
        yield
    finally:
        remove("gateway")


@pytest.fixture
def plain() -> Iterator[None]:
    """A gateway without keys that has found all replicas."""
    with gateway():
        assert wait_until(lambda: {ask("echo").json()["name"] for _ in NAMES} == set(NAMES), 20)
        yield


def is_up() -> bool:
    """Whether the gateway answers, and has found a replica."""
    try:
        return ask("echo", key=KEYS[0]).ok
    except requests.RequestException:
        return False


def container(name: str) -> str:
    """The name of one of these tests' containers."""
    return f"{NETWORK}-{name}"


def remove(*names: str) -> None:
    """Remove containers, if they are there."""
    command = ["docker", "rm", "--force", *map(container, names)]
    subprocess.run(command, capture_output=True, timeout=60)


def ask(
    command: str, size: int = 0, key: str = "", chunked: bool = False, url: str = URL
) -> requests.Response:
    """POST a command to the replicas, in a body of so many bytes."""
    body = f"{command}\n".encode().ljust(size)
    headers = PNG | ({"Authorization": f"Bearer {key}"} if key else {})
    return requests.post(url, iter([body]) if chunked else body, headers=headers, timeout=100)


def tries(command: str) -> Counter[str]:
    """How many requests with this command each replica has seen so far."""
    lines = {name: docker("logs", container(name)).splitlines() for name in NAMES}
    return Counter({name: sum(line.startswith(command) for line in lines[name]) for name in NAMES})
