"""The services that are compared: how each is started, asked, checked, watched and stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import requests
from numpy.typing import NDArray

from bench.wrk import Target
from serve.bundle.engine.host import usable_cores
from serve.bundle.engine.opening import available
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle
from serve.launcher.settings import PORTS_NEEDED

START_S = 120.0  # for a contender to give its first right answer
POLL_S = 0.02  # between two requests for that answer
ANSWER_S = 60.0  # longest wait for a request outside the measurement
STOP_S = 60.0  # after SIGTERM; our launcher drains for 20 s at most, then stops TorchServe in 20 s
SAME = 1e-3  # the greatest difference from eager PyTorch's embedding, in fp32, that is accepted
WARM_UP_S = 5.0
JVM_WARM_UP_S = 60.0  # for the JVM to compile the code that it runs

FASTAPI = "fastapi"
LITSERVE = "litserve"
# Services of ours → module, server, device and precision, and further options.
OURS = {
    "granian": ("serve", "granian", "cpu", "fp32"),
    "granian-2": ("serve", "granian", "cpu", "fp32", "--processes", "2"),
    "torchserve": ("serve", "torchserve", "cpu", "fp32"),
    "granian-bf16": ("serve", "granian", "openvino", "bf16"),
    "torchserve-bf16": ("serve", "torchserve", "openvino", "bf16"),
    "granian-nothing": ("bench.peers.nothing_service", "granian", "cpu", "fp32"),
}
NAMES = (LITSERVE, FASTAPI, *OURS)


@dataclass(frozen=True)
class Contender:
    """A service that embeds.

    Attributes:
        name: one of NAMES.
        command: what to run, without the interpreter before it and the port after it.
        path: where to POST a PNG.
        tolerance: of its embeddings.
        engine: device and precision of our service; None where that isn't measured alone too.
        warm_up_s: how long it is loaded before it is measured.
    """

    name: str
    command: Sequence[str]
    path: str
    tolerance: float = SAME
    engine: tuple[str, str] | None = None
    warm_up_s: float = WARM_UP_S


def contenders(bundle: Bundle, serve_args: Sequence[str]) -> list[Contender]:
    """The contenders that this host can run; ``serve_args`` go to each service of ours."""
    cores, bf16 = str(usable_cores()), has_openvino_bf16(bundle)
    return [
        Contender(LITSERVE, ["bench.peers.litserve_service", "--cores", cores], "/predict"),
        Contender(FASTAPI, fastapi(cores), "/embed"),
        *(our_service(name, bundle, serve_args) for name in OURS if bf16 or "bf16" not in name),
    ]


def has_openvino_bf16(bundle: Bundle) -> bool:
    """Whether onnxruntime, the processor and this model allow OpenVINO in bf16."""
    return "bf16" in bundle.manifest.tolerances and ("openvino", "bf16") in available("onnxruntime")


def fastapi(cores: str) -> list[str]:
    """The command of the FastAPI service, with a process for each core."""
    app = ["uvicorn", "bench.peers.fastapi_service:app", "--workers", cores]
    return [*app, "--loop", "uvloop", "--http", "httptools", "--no-access-log"]


def our_service(name: str, bundle: Bundle, serve_args: Sequence[str]) -> Contender:
    """One of OURS."""
    module, server, device, precision, *further = OURS[name]
    command = [module, str(bundle.folder), *serve_args, "--server", server]
    command += ["--runtime", "onnxruntime", "--device", device, "--precision", precision, *further]
    return Contender(
        name,
        command,
        "/predictions/embed",
        bundle.manifest.tolerances[precision].embedding,
        (device, precision) if module == "serve" else None,
        JVM_WARM_UP_S if server == "torchserve" else WARM_UP_S,
    )


class Running:
    """A contender that has been started.

    Attributes:
        contender: what was started.
        url: where it listens.
        single: the request that is measured, of one PNG.
        process: the first of its processes.
        ready_s: from its start to its first right answer.
    """

    def __init__(
        self, contender: Contender, bundle: Bundle, port: int, folder: Path, process: psutil.Popen
    ) -> None:
        golden = bundle.golden()
        self.contender, self.url, self.process = contender, f"http://127.0.0.1:{port}", process
        self._expected = golden.embeddings[0]
        self._picture = folder / "image.png"
        self._picture.write_bytes(write_png(golden.images[0]))
        self.single = self.post(contender.path)
        self.ready_s = 0.0

    def post(self, path: str) -> Target:
        """A request that sends the picture to a path."""
        return Target(self.url + path, self._picture, {"Content-Type": "image/png"})

    def is_up(self) -> bool:
        """Whether it answers, and rightly.

        Raises:
            ValueError: its answer is wrong.
        """
        try:
            reply = ask(self.single)
        except requests.RequestException:
            return False
        if reply.ok:
            self.compare(np.array(reply.json()["embedding"]), self._expected)
        return reply.ok

    def compare(self, embeddings: NDArray[np.floating], expected: NDArray[np.floating]) -> None:
        """Check that embeddings are as expected, within the contender's tolerance.

        Raises:
            ValueError: an embedding differs by more.
        """
        gap, tolerance = float(np.abs(embeddings - expected).max()), self.contender.tolerance
        if not gap <= tolerance:
            raise ValueError(
                f"{self.contender.name} is wrong: an embedding differs by {gap:.2g}, "
                f"over the {tolerance:.2g} allowed"
            )

    def cpu_s(self) -> float:
        """What its processes have used so far, in seconds of one core."""
        times = [each.cpu_times() for each in self._processes()]
        return sum(each.user + each.system for each in times)

    def memory_mb(self) -> float:
        """The memory of its processes, as their PSS if nothing else mapped the files they map.

        The kernel's own PSS would leave a share of each library to this process.
        """
        own, files = 0, Counter[str]()
        for process in self._processes():
            for each in process.memory_maps():
                own += each.anonymous
                files[each.path] = max(files[each.path], each.rss - each.anonymous)
        return (own + files.total()) / 1e6

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def ask(target: Target) -> requests.Response:
    """POST a request once."""
    with requests.Session() as session:
        session.trust_env = False  # a request to loopback must not use a proxy
        body, headers = target.body.read_bytes(), dict(target.headers)
        return session.post(target.url, body, headers=headers, timeout=ANSWER_S)


@contextmanager
def running(contender: Contender, bundle: Bundle, folder: Path) -> Iterator[Running]:
    """Start a contender, wait for its first right answer, and stop it in the end.

    Raises:
        RuntimeError: it died or didn't answer in time; the message ends with its log.
        ValueError: its answer is wrong.
    """
    port, log = free_port(), folder / "service.log"
    started = time.monotonic()
    with log.open("w") as output:
        process = psutil.Popen(
            [sys.executable, "-m", *contender.command, "--port", str(port)],
            env=environment(bundle),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # puts all its processes into one group, which stop() kills
        )
    try:
        service = Running(contender, bundle, port, folder, process)
        while not service.is_up():
            if process.poll() is not None or time.monotonic() > started + START_S:
                last = "\n".join(log.read_text().splitlines()[-20:])
                raise RuntimeError(f"{contender.name} did not start:\n{last}")
            time.sleep(POLL_S)
        service.ready_s = time.monotonic() - started
        yield service
    finally:
        stop(process)


def environment(bundle: Bundle) -> dict[str, str]:
    """A contender's environment, without the variables that set options of python -m serve."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PINHOLE_")}
    return kept | {"BUNDLE": str(bundle.folder)}


def stop(process: psutil.Popen) -> None:
    """Send SIGTERM, then SIGKILL to the rest of the group: LitServe's workers outlive LitServe."""
    process.terminate()
    with suppress(psutil.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """The first of PORTS_NEEDED free ports in a row."""
    for first in range(22_000, 32_000, 10):
        try:
            for port in range(first, first + PORTS_NEEDED):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError(f"no {PORTS_NEEDED} free ports in a row")
