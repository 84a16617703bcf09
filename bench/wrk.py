"""The load generator: Debian's wrk, a closed loop over keep-alive connections."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).with_name("post.lua")
TIMEOUT_S = 60  # of a request; a longer wait is counted as a fault
KINDS = ("non_2xx", "timeout", "connect", "read", "write")  # the faults that wrk counts
SPARE_S = 30.0  # for wrk to end after the time it was given


@dataclass(frozen=True)
class Target:
    """One request, to be sent again and again.

    Attributes:
        url: where to POST.
        body: the file with the body.
        headers: name → value.
    """

    url: str
    body: Path
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """What was measured under a load.

    Attributes:
        answers: how many came.
        seconds: that the load took.
        p50_ms: median of the latencies.
        p99_ms: 99th percentile of the latencies.
        faults: kind (``non_2xx``, ``timeout``, ``connect``, ``read``, ``write``, ``no_answer``) →
            how many; kinds that didn't happen are left out. Any fault makes the load invalid.
        cpu_s: what the answers cost, in seconds of one core; 0 where that isn't measured.
    """

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    faults: Mapping[str, int] = field(default_factory=dict)
    cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of one core for each answer."""
        return self.cpu_s / max(1, self.answers) * 1e6


def find_wrk() -> str:
    """The path of wrk.

    Raises:
        FileNotFoundError: wrk isn't installed; the message says how to install it.
    """
    program = shutil.which("wrk")
    if program is None:
        raise FileNotFoundError("wrk isn't installed: apt-get install wrk (Debian, Ubuntu)")
    return program


def start(target: Target, connections: int, seconds: float) -> subprocess.Popen[str]:
    """Send requests over ``connections`` for ``seconds``, each as soon as the last is answered."""
    command = [
        find_wrk(),
        f"-t{min(2, connections)}",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        f"--timeout={TIMEOUT_S}s",
        *("-s", str(SCRIPT)),
        target.url,
        "--",
        str(target.body),
        *(f"{name}: {value}" for name, value in target.headers.items()),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], seconds: float) -> Load:
    """Wait for wrk to end; kill it SPARE_S after the ``seconds`` of its load.

    Raises:
        subprocess.TimeoutExpired: wrk had to be killed.
        subprocess.CalledProcessError: wrk failed.
    """
    try:
        output, _ = process.communicate(timeout=seconds + SPARE_S)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, process.args, output)
    return read_load(json.loads(output.splitlines()[-1]))


def read_load(figures: Mapping[str, float]) -> Load:
    """The figures that post.lua printed, as a Load."""
    answers = int(figures["requests"] - figures["non_2xx"])
    counts = {kind: int(figures[kind]) for kind in KINDS} | {"no_answer": int(answers == 0)}
    faults = {kind: count for kind, count in counts.items() if count}
    return Load(answers, figures["seconds"], figures["p50_ms"], figures["p99_ms"], faults)


def measure(target: Target, connections: int, seconds: float) -> Load:
    """Start wrk and wait for it."""
    return finish(start(target, connections, seconds), seconds)
