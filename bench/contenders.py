"""The services that are compared: how each is started, asked, checked and stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import requests
from numpy.typing import NDArray

from bench.wrk import Target
from serve.bundle.engine.host import usable_cores
from serve.bundle.engine.opening import available
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle
from serve.endpoints import ENDPOINTS

PORTS = 6  # ports in a row that python -m serve needs
READINESS = 3  # python -m serve tells on its port + 3 whether it is ready
START_S = 120.0  # for a contender to give its first right answer
ANSWER_S = 60.0  # longest wait for a request outside the measurement
STOP_S = 60.0  # after SIGTERM; our launcher drains for 20 s at most, then stops TorchServe in 20 s
SAME = 1e-3  # the greatest difference from eager PyTorch's embedding, in fp32, that is accepted

OURS = "ours"
OURS_BF16 = "ours-bf16"
NOTHING = "nothing"
FASTAPI = "fastapi"
LITSERVE = "litserve"
NAMES = (OURS, OURS_BF16, NOTHING, FASTAPI, LITSERVE)


@dataclass(frozen=True)
class Contender:
    """A service that embeds.

    Attributes:
        name: one of NAMES.
        command: what to run for a port, without the interpreter.
        paths: where to POST a PNG; the first is measured, and each must answer before the
            service counts as started.
        tolerance: of its embeddings; None if the service ignores the image.
        engine: device and precision of our service, which reports when it is ready; else None.
    """

    name: str
    command: Callable[[int], list[str]]
    paths: tuple[str, ...]
    tolerance: float | None = SAME
    engine: tuple[str, str] | None = None


def contenders(bundle: Bundle, serve_args: Sequence[str]) -> list[Contender]:
    """The contenders that this host can run; ``serve_args`` go to every TorchServe."""
    cores, folder = str(usable_cores()), str(bundle.folder)
    every = tuple(f"/predictions/{endpoint}" for endpoint in ENDPOINTS)

    def torchserve(module: str, device: str, precision: str) -> Callable[[int], list[str]]:
        engine = ["--runtime", "onnxruntime", "--device", device, "--precision", precision]
        return lambda port: [module, folder, *serve_args, *engine, "--port", str(port)]

    found = [Contender(OURS, torchserve("serve", "cpu", "fp32"), every, engine=("cpu", "fp32"))]
    if has_openvino_bf16(bundle):
        tolerance, engine = bundle.manifest.tolerances["bf16"].embedding, ("openvino", "bf16")
        found.append(Contender(OURS_BF16, torchserve("serve", *engine), every, tolerance, engine))
    nothing = torchserve("bench.peers.nothing_service", "cpu", "fp32")
    return [
        *found,
        Contender(NOTHING, nothing, every, tolerance=None),
        Contender(FASTAPI, lambda port: fastapi(port, cores), ("/embed",)),
        Contender(LITSERVE, lambda port: litserve(port, cores), ("/predict",)),
    ]


def has_openvino_bf16(bundle: Bundle) -> bool:
    """Whether onnxruntime, the processor and this model allow OpenVINO in bf16."""
    return "bf16" in bundle.manifest.tolerances and ("openvino", "bf16") in available("onnxruntime")


def fastapi(port: int, cores: str) -> list[str]:
    """The command of the FastAPI service, with a process for each core."""
    app = ["uvicorn", "bench.peers.fastapi_service:app", "--workers", cores, "--port", str(port)]
    return [*app, "--loop", "uvloop", "--http", "httptools", "--no-access-log"]


def litserve(port: int, cores: str) -> list[str]:
    """The command of the LitServe service."""
    return ["bench.peers.litserve_service", "--port", str(port), "--cores", cores]


class Running:
    """A contender that has started.

    Attributes:
        contender: what was started.
        url: where it listens.
        single: the request that is measured, of one PNG.
    """

    def __init__(self, contender: Contender, bundle: Bundle, port: int, folder: Path) -> None:
        golden = bundle.golden()
        self.contender, self.url = contender, f"http://127.0.0.1:{port}"
        self._readiness = f"http://127.0.0.1:{port + READINESS}/ready"
        self._expected = golden.embeddings[0]
        self._picture = folder / "image.png"
        self._picture.write_bytes(write_png(golden.images[0]))
        self.single = self.post(contender.paths[0])

    def post(self, path: str) -> Target:
        """A request that sends the picture to a path."""
        return Target(self.url + path, self._picture, {"Content-Type": "image/png"})

    def is_up(self) -> bool:
        """Whether the service is ready: our service says so, of a peer every path answers."""
        try:
            if self.contender.engine is not None:
                return ask(self._readiness).ok
            return all(ask(self.post(path)).ok for path in self.contender.paths)
        except requests.RequestException:
            return False

    def check(self) -> None:
        """Check that the answer is right.

        Raises:
            ValueError: the answer is wrong.
        """
        if self.contender.tolerance is not None:
            self.compare(np.array(ask(self.single).json()["embedding"]), self._expected)

    def compare(self, embeddings: NDArray[np.floating], expected: NDArray[np.floating]) -> None:
        """Check that embeddings are as expected, within the contender's tolerance.

        Raises:
            ValueError: an embedding differs by more.
        """
        gap, tolerance = float(np.abs(embeddings - expected).max()), self.contender.tolerance
        if tolerance is not None and not gap <= tolerance:
            raise ValueError(
                f"{self.contender.name} is wrong: an embedding differs by {gap:.2g}, "
                f"over the {tolerance:.2g} allowed"
            )


def ask(target: Target | str) -> requests.Response:
    """Send a request once: GET of an address, POST of a target."""
    with requests.Session() as session:
        session.trust_env = False  # a request to loopback must not use a proxy
        if isinstance(target, str):
            return session.get(target, timeout=ANSWER_S)
        body, headers = target.body.read_bytes(), dict(target.headers)
        return session.post(target.url, body, headers=headers, timeout=ANSWER_S)


@contextmanager
def running(contender: Contender, bundle: Bundle, folder: Path) -> Iterator[Running]:
    """Start a contender, check its answer, and stop it in the end.

    Raises:
        RuntimeError: it died or didn't answer in time; the message ends with its log.
        ValueError: its answer is wrong.
    """
    port, log = free_port(), folder / "service.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *contender.command(port)],
            env=environment(bundle),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # puts all its processes into one group, which stop() kills
        )
    try:
        service = Running(contender, bundle, port, folder)
        wait_until_up(service, process, log)
        service.check()
        yield service
    finally:
        stop(process)


def environment(bundle: Bundle) -> dict[str, str]:
    """A contender's environment, without the variables that set options of python -m serve."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PINHOLE_")}
    return kept | {"BUNDLE": str(bundle.folder)}


def wait_until_up(service: Running, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a contender is up.

    Raises:
        RuntimeError: it died or didn't answer in time; the message ends with its log.
    """
    deadline = time.monotonic() + START_S
    while not service.is_up():
        if process.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text().splitlines()[-20:])
            raise RuntimeError(f"{service.contender.name} did not start:\n{last}")
        time.sleep(0.2)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, then SIGKILL to the rest of the group: LitServe's workers outlive LitServe."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """The first of PORTS free ports in a row."""
    for first in range(22_000, 32_000, 10):
        try:
            for port in range(first, first + PORTS):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError(f"no {PORTS} free ports in a row")
