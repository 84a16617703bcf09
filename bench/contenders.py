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

from bench.environments import ROOT, python_of
from bench.forms import Form, base64_form, embedding_in, file_form, tensor_form
from bench.wrk import Target
from serve.bundle.engine.host import processor_has_bf16, usable_cores
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle
from serve.launcher.readiness import loopback_session
from serve.launcher.settings import PORTS_NEEDED

START_S = 120.0  # for a contender to give its first right answer
POLL_S = 0.02  # between two requests for that answer
ANSWER_S = 60.0  # longest wait for a request outside the measurement
STOP_S = 60.0  # after SIGTERM; our launcher drains for 20 s at most, then stops TorchServe in 20 s
SAME = 1e-3  # the greatest difference from eager PyTorch's embedding, in fp32, that is accepted
WARM_UP_S = 5.0
JVM_WARM_UP_S = 40.0  # for the JVM to compile the code that it runs

UVICORN = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
# Peer → environment, module with options, path, form of its requests.
PEERS: dict[str, tuple[str, list[str], str, Form]] = {
    "fastapi": (
        "fastapi",
        ["uvicorn", "bench.peers.fastapi_service:app", "--workers", "{cores}", *UVICORN],
        "/embed",
        file_form,
    ),
    "litserve": ("litserve", ["bench.peers.litserve_service"], "/predict", file_form),
    "bentoml": (
        "bentoml",
        ["bentoml", "serve", "bench.peers.bentoml_service:EmbedService", "--host", "127.0.0.1"],
        "/embed",
        file_form,
    ),
    "ray-serve": ("ray", ["bench.peers.ray_service"], "/", file_form),
    "mlserver": (
        "mlserver",
        ["bench.peers.mlserver_service"],
        "/v2/models/embed/infer",
        base64_form,
    ),
    "triton": ("triton", ["bench.peers.triton_service"], "/v2/models/embed/infer", tensor_form),
    "torchserve-bare": (
        "torchserve",
        ["bench.peers.torchserve_service"],
        "/predictions/embed",
        file_form,
    ),
}
# Service of ours → environment, module, server, device and precision, and further options.
OURS = {
    "granian": ("granian", "serve", "granian", "cpu", "fp32"),
    "granian-2": ("granian", "serve", "granian", "cpu", "fp32", "--processes", "2"),
    "granian-bf16": ("granian-openvino", "serve", "granian", "openvino", "bf16"),
    "granian-nothing": ("granian", "bench.peers.nothing_service", "granian", "cpu", "fp32"),
    "torchserve": ("torchserve", "serve", "torchserve", "cpu", "fp32"),
}
NAMES = (*PEERS, *OURS)
SERVERS = ("granian", "torchserve")  # those of OURS that are measured in every way


@dataclass(frozen=True)
class Contender:
    """A service that embeds.

    Attributes:
        name: one of NAMES.
        environment: one of environments.PACKAGES.
        command: what to run, without the interpreter before it and the port after it.
        path: where to POST an image.
        form: how an image is sent.
        tolerance: of its embeddings.
        warm_up_s: how long it is loaded before it is measured.
    """

    name: str
    environment: str
    command: Sequence[str]
    path: str
    form: Form = file_form
    tolerance: float = SAME
    warm_up_s: float = WARM_UP_S


def find_contender(name: str, bundle: Bundle, serve_args: Sequence[str] = ()) -> Contender:
    """The contender of that name; ``serve_args`` go to a service of ours.

    Raises:
        RuntimeError: this processor or this model can't do it.
    """
    warm_up_s = JVM_WARM_UP_S if "torchserve" in name else WARM_UP_S
    if name in PEERS:
        environment, command, path, form = PEERS[name]
        command = [word.format(cores=usable_cores()) for word in command]
        return Contender(name, environment, command, path, form, warm_up_s=warm_up_s)
    environment, module, server, device, precision, *further = OURS[name]
    if precision == "bf16" and not (processor_has_bf16() and "bf16" in bundle.manifest.tolerances):
        raise RuntimeError("this processor, or this model, has no bf16")
    command = [module, str(bundle.folder), *serve_args, "--server", server]
    command += ["--runtime", "onnxruntime", "--device", device, "--precision", precision, *further]
    tolerance = bundle.manifest.tolerances[precision].embedding
    return Contender(
        name,
        environment,
        command,
        "/predictions/embed",
        tolerance=tolerance,
        warm_up_s=warm_up_s,
    )


class Running:
    """A contender that has been started.

    Attributes:
        contender: what was started.
        port: where it listens, on loopback.
        png: the file that is sent, of one golden image.
        single: the request that is measured, of that file.
        processes: the first of its processes, and of what is started in front of it.
        ready_s: from its start to its first right answer.
    """

    def __init__(
        self, contender: Contender, bundle: Bundle, port: int, folder: Path, process: psutil.Popen
    ) -> None:
        golden = bundle.golden()
        self.contender, self.port, self.processes = contender, port, [process]
        self._expected, self._folder = golden.embeddings[0], folder
        self.png = write_png(golden.images[0])
        self.single = self.post(contender.path, self.png, "png")
        self.ready_s = 0.0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def post(self, path: str, file: bytes, kind: str) -> Target:
        """A request that sends an image file of a kind (``png`` or ``jpeg``) to a path."""
        body, headers = self.contender.form(file, kind)
        where = self._folder / f"{len(body)}.body"
        where.write_bytes(body)
        return Target(self.url + path, where, headers)

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
            self.compare(np.array(embedding_in(reply.json())), self._expected)
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
        times = [each.cpu_times() for process in self.processes for each in family(process)]
        return sum(each.user + each.system for each in times)

    def memory_mb(self) -> float:
        """The memory of its processes, as their PSS if nothing else mapped the files they map.

        The kernel's own PSS would leave a share of each library to this process.
        """
        own, files = 0, Counter[str]()
        for process in self.processes:
            for member in family(process):
                for each in member.memory_maps():
                    own += each.anonymous
                    files[each.path] = max(files[each.path], each.rss - each.anonymous)
        return (own + files.total()) / 1e6


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all that it has started."""
    return [process, *process.children(recursive=True)]


def ask(target: Target) -> requests.Response:
    """POST a request once."""
    with loopback_session() as session:
        body, headers = target.body.read_bytes(), dict(target.headers)
        return session.post(target.url, body, headers=headers, timeout=ANSWER_S)


@contextmanager
def running(contender: Contender, bundle: Bundle, folder: Path) -> Iterator[Running]:
    """Start a contender, wait for its first right answer, and stop it in the end.

    Raises:
        RuntimeError: it can't be installed, died or didn't answer in time.
        ValueError: its answer is wrong.
    """
    python, port, log = python_of(contender.environment), free_port(), folder / "service.log"
    started = time.monotonic()
    with log.open("w") as output:
        process = psutil.Popen(
            [python, "-m", *contender.command, "--port", str(port)],
            cwd=ROOT,
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
                lines = log.read_text().splitlines() or ["nothing"]
                print(*lines[-20:], sep="\n", file=sys.stderr)
                raise RuntimeError(f"it did not start; its log ends with: {lines[-1]}")
            time.sleep(POLL_S)
        service.ready_s = time.monotonic() - started
        yield service
    finally:
        stop(process)


def environment(bundle: Bundle) -> dict[str, str]:
    """A contender's environment, without the variables that set options of python -m serve.

    No contender reports to its makers.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PINHOLE_")}
    return kept | {
        "BUNDLE": str(bundle.folder),
        "PYTHONPATH": str(ROOT),  # Ray's and TorchServe's workers start elsewhere
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def stop(process: psutil.Popen) -> None:
    """Send SIGTERM, then SIGKILL to the rest: LitServe's and Ray's processes outlive the first."""
    members = []
    with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        members = family(process)
        process.terminate()
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.kill()
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
