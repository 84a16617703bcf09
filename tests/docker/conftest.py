"""A real docker compose project, of images that `make docker-test` has built: once a server."""

import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).parent.parent.parent
PROJECT = "pinhole-test"
PORT = 18_080
URL = f"http://127.0.0.1:{PORT}"
SITE, OTHER = "https://site.example", "https://other.example:8443"
KEYS = ("first-key-of-two-0001", "other-key-of-two-0002")
# High limits for the tests' load, and few workers, so that several replicas can start at once.
ROOMY = {"PINHOLE_RATE": "100000", "PINHOLE_CONNECTIONS": "1000", "PINHOLE_WORKERS": "1"}


@dataclass
class Compose:
    """The project, driven as its user does: by commands and environment variables."""

    server: str
    port: int = PORT
    url: str = f"http://127.0.0.1:{PORT}"
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``docker compose …``; ``check`` is False for a command that may fail."""
        answer = subprocess.run(
            ["docker", "compose", "--env-file", "/dev/null", "-p", PROJECT, *arguments],
            cwd=ROOT,
            env=os.environ
            | {"PINHOLE_SERVER": self.server, "PINHOLE_PORT": str(self.port)}
            | self.variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or answer.returncode == 0, answer.stderr
        return answer

    def up(self, *arguments: str, **variables: str) -> None:
        """``docker compose up --wait`` with just these variables."""
        self.variables = variables
        self.run("up", "--wait", *arguments)

    def containers(self, service: str) -> list[str]:
        """The ids of a service's containers, in the order of their numbers."""
        listed = self.run("ps", "--all", "--format", "json", service).stdout
        rows = [json.loads(line) for line in listed.splitlines()]
        return [row["ID"] for row in sorted(rows, key=lambda row: row["Name"])]

    def log(self, service: str) -> str:
        """What a service has logged so far."""
        return self.run("logs", "--no-log-prefix", service).stdout


def docker(*arguments: str) -> str:
    """``docker …``; returns stdout."""
    answer = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def inspect(container: str, template: str) -> str:
    """One fact about a container."""
    return docker("inspect", "--format", template, container)


@pytest.fixture(scope="session", params=["torchserve", "granian"])
def compose(request: pytest.FixtureRequest) -> Iterator[Compose]:
    """The project, which is removed in the end. Every test with it runs over both servers."""
    project = Compose(request.param)
    project.run("down", "--volumes", "--timeout", "5")
    yield project
    project.variables = {}
    project.run("--profile", "monitoring", "down", "--volumes", "--timeout", "5")


def kill(container: str) -> None:
    """Kill a container's first process from the host, as the kernel does when memory runs out.

    Docker starts such a container again. It would not after ``docker kill``.
    """
    rights = ["--cap-drop=ALL", "--cap-add=KILL", "--pid=host", "--user=0"]
    pid = inspect(container, "{{.State.Pid}}")
    run = ["run", "--rm", *rights, "--entrypoint=sh", "pinhole-gateway"]
    docker(*run, "-c", f"kill -9 {pid}")


@contextmanager
def load(compose: Compose, body: bytes, threads: int = 8) -> Iterator[Counter[str]]:
    """Run callers who send requests, and never retry, for as long as the block lasts.

    Yields:
        How often each outcome was seen: a status, or the name of an exception.
    """
    outcomes: Counter[str] = Counter()
    stopping = threading.Event()

    def call() -> None:
        with requests.Session() as session:
            while not stopping.is_set():
                outcomes[embed(session, compose.url, body)] += 1

    callers = [threading.Thread(target=call) for _ in range(threads)]
    for caller in callers:
        caller.start()
    try:
        yield outcomes
    finally:
        stopping.set()
        for caller in callers:
            caller.join(60)


def embed(session: requests.Session, url: str, body: bytes) -> str:
    """The outcome of one request."""
    try:
        reply = session.post(
            f"{url}/predictions/embed", body, headers={"Content-Type": "image/png"}, timeout=30
        )
    except requests.RequestException as error:
        return type(error).__name__
    return str(reply.status_code)


@pytest.fixture(scope="module")
def keyed(compose: Compose) -> Compose:
    """A gateway with two keys, and with limits too high to matter."""
    started = time.monotonic()
    compose.up(PINHOLE_API_KEY=", ".join(KEYS), PINHOLE_CORS=f"{SITE}, {OTHER}", **ROOMY)
    print(f"cold start to healthy: {time.monotonic() - started:.1f} s")
    return compose


@pytest.fixture(scope="session")
def seven() -> bytes:
    """A handwritten seven of the model's own size."""
    return (ROOT / "clients" / "examples" / "digits" / "7-00000.png").read_bytes()


def post(
    url: str, body: bytes, key: str | None = None, content_type: str = "image/png"
) -> requests.Response:
    """POST a body, with a key or without."""
    headers = {"Content-Type": content_type}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return requests.post(url, body, headers=headers, timeout=30)


def get(path: str, key: str | None = KEYS[0]) -> requests.Response:
    """GET, with a key unless told otherwise."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return requests.get(URL + path, headers=headers, timeout=10, allow_redirects=False)
