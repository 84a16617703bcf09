"""Real services on the shipped weights, one of each server, for tests that only talk to them."""

import atexit
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from pinhole import Client
from serve.bundle.manifest import Bundle
from serve.launcher.settings import SERVERS
from serve.torchserve.sockets import ask, management_socket

START_S = 120
STOP_S = 40


@dataclass
class Running:
    """A service started by ``python -m serve``."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    server: str

    @property
    def url(self) -> str:
        """The URL of the inference API."""
        return f"http://127.0.0.1:{self.port}"

    def readiness(self) -> requests.Response:
        """The launcher's reply to GET /ready."""
        return requests.get(f"http://127.0.0.1:{self.port + 3}/ready", timeout=10)

    def worker_pid(self, endpoint: str) -> int:
        """The process of the endpoint's first worker."""
        if self.server == "granian":
            return self.process.pid
        _, models = ask(management_socket(self.home), "GET", f"/models/{endpoint}", 10)
        return int(json.loads(models)[0]["workers"][0]["pid"])

    @property
    def home(self) -> Path:
        """TorchServe's folder, in which the JVM runs."""
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        jvm, *_ = Path(children).read_text().split()
        return Path(f"/proc/{jvm}/cwd").resolve()

    def stop(self) -> int:
        """Send SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(STOP_S)


def free_port() -> int:
    """The first of six free ports in a row.

    The port after them is kept for as long as the tests run, and stands for the six: another run of
    the tests on this machine would find the same six free until a service listens on them.
    """
    for first in range(21_000, 31_000, 10):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first + 6))
            for port in range(first, first + 6):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        atexit.register(claim.close)
        return first
    raise RuntimeError("no six free ports in a row")


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; whether it came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.1)
    return False


@contextmanager
def running(
    bundle: Bundle,
    folder: Path,
    *options: str,
    port: int | None = None,
    server: str = "torchserve",
) -> Iterator[Running]:
    """Start a service, wait until it is ready, and stop it in the end."""
    port, log = port or free_port(), folder / "serve.log"
    where = ["--port", str(port), "--server", server]
    command = [sys.executable, "-m", "serve", str(bundle.folder), *where, *options]
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=output, text=True) as process,
    ):
        service = Running(process, port, log, server)

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return service.readiness().ok
            except requests.ConnectionError:
                return False

        try:
            assert wait_until(is_ready, START_S), log.read_text()
            yield service
        finally:
            if process.poll() is None:
                service.stop()


@pytest.fixture(scope="session", params=SERVERS)
def service(
    request: pytest.FixtureRequest,
    shipped_bundle: Bundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """The service most tests share; they leave it as they found it."""
    folder = tmp_path_factory.mktemp("service")
    with running(shipped_bundle, folder, server=request.param) as service:
        yield service


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """The server of a service that a test starts for itself."""
    name: str = request.param
    return name


@pytest.fixture
def client(service: Running) -> Iterator[Client]:
    """A client of the shared service."""
    with Client(service.url) as client:
        yield client
