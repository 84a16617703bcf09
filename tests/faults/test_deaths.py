"""Processes that are killed or stopped while callers ask."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serve.bundle.manifest import Bundle
from tests.e2e.conftest import START_S, Running, free_port, running, wait_until
from tests.faults.conftest import Story, is_ready, wait_until_ready
from tests.faults.load import Outcome, under_load
from tests.faults.processes import is_alive, tree
from tests.faults.traffic import Card

RATE = 20.0  # requests a second of the load
BEFORE_S = 4.0  # of load before the fault
AFTER_S = 4.0  # of load after the service is ready again
EXIT_S = 10.0  # for the launcher to end once its server is dead
ORPHAN_S = 5.0  # for the JVM to end once its launcher is dead
BATCH = 24  # most requests in the dynamic batch of a worker
TIMEOUT_S = 10  # of a worker, in place of the 300 s of serve.torchserve.store
REPLACED_S = 30.0  # for TorchServe to start a worker in place of one that it lost
STUCK_S = 90.0  # for a service with a worker that never answers to be well again, or to end
PAUSE_S = 8.0  # for which a whole service is stopped

Tell = Callable[[str, Sequence[Outcome], float], Story]


def hurt_a_worker(
    service: Running, deck: Sequence[Card], number: signal.Signals, noticed_s: float
) -> tuple[Sequence[Outcome], float]:
    """Send a worker a signal under load, and wait until the service is ready again.

    Args:
        service: TorchServe.
        deck: the requests.
        number: of the signal.
        noticed_s: within which readiness may turn false.

    Returns:
        What callers saw, and when the signal was sent (a time.monotonic).
    """
    with under_load(service.port, deck, RATE) as load:
        time.sleep(BEFORE_S)
        at = time.monotonic()
        hurt = service.worker_pid("embed")
        os.kill(hurt, number)
        wait_until(lambda: not is_ready(service), noticed_s)
        wait_until_ready(service)
        assert wait_until(lambda: service.worker_pid("embed") != hurt, REPLACED_S)
        time.sleep(AFTER_S)
        return load.stop(), at


def test_a_worker_is_killed(
    shipped_bundle: Bundle, tmp_path: Path, small_deck: Sequence[Card], tell: Tell
) -> None:
    """Only the requests of the worker's own batch fail; the rest wait for another worker."""
    with running(shipped_bundle, tmp_path) as service:
        outcomes, at = hurt_a_worker(service, small_deck, signal.SIGKILL, 5)
    story = tell("torchserve: kill -9 a worker", outcomes, at)

    assert story.wrong == 0
    assert story.failed <= BATCH
    assert story.recovered_s < 20


def test_the_jvm_is_killed(
    shipped_bundle: Bundle, tmp_path: Path, small_deck: Sequence[Card], tell: Tell
) -> None:
    """The launcher ends with 1, and a service started at once on the same ports is soon ready."""
    with (
        running(shipped_bundle, tmp_path) as service,
        under_load(service.port, small_deck, RATE) as load,
    ):
        time.sleep(BEFORE_S)
        (jvm,) = filter(is_java, tree(service.process.pid))
        at = time.monotonic()
        os.kill(jvm, signal.SIGKILL)
        assert service.process.wait(EXIT_S) == 1
        with running(shipped_bundle, tmp_path, port=service.port):
            time.sleep(AFTER_S)
            story = tell("torchserve: kill -9 the JVM, then a restart", load.stop(), at)

    assert story.wrong == 0
    assert story.recovered_s < START_S


def test_the_launcher_is_killed(
    server: str, shipped_bundle: Bundle, tmp_path: Path, small_deck: Sequence[Card], tell: Tell
) -> None:
    """Nothing of the service lives on, and it can be started again on the same ports at once."""
    with (
        running(shipped_bundle, tmp_path, server=server) as service,
        under_load(service.port, small_deck, RATE) as load,
    ):
        time.sleep(BEFORE_S)
        pids = tree(service.process.pid)
        at = time.monotonic()
        service.process.kill()
        service.process.wait()
        assert wait_until(lambda: not any(map(is_java, filter(is_alive, pids))), ORPHAN_S)
        with running(shipped_bundle, tmp_path, server=server, port=service.port):
            time.sleep(AFTER_S)
            story = tell(f"{server}: kill -9 the launcher, then a restart", load.stop(), at)
            assert not any(map(is_alive, pids)), "workers outlived their launcher"

    assert story.wrong == 0
    assert story.recovered_s < START_S


def test_a_worker_stops_past_its_timeout(
    shipped_bundle: Bundle, tmp_path: Path, small_deck: Sequence[Card], tell: Tell
) -> None:
    """TorchServe replaces a worker that doesn't answer within its time-out, here of ten seconds."""
    with running_impatiently(shipped_bundle, tmp_path) as service:
        outcomes, at = hurt_a_worker(service, small_deck, signal.SIGSTOP, TIMEOUT_S + 5)
    story = tell(f"torchserve: SIGSTOP a worker, time-out {TIMEOUT_S} s", outcomes, at)

    assert story.wrong == 0
    assert story.failed <= BATCH


def test_every_worker_of_an_endpoint_stops(
    shipped_bundle: Bundle, tmp_path: Path, note: Callable[[str], None]
) -> None:
    """The launcher doesn't wait for the time-out of 300 s: all is well soon, or it ends."""
    with running(shipped_bundle, tmp_path, "--workers", "1") as service:
        stopped, at = service.worker_pid("embed"), time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        assert wait_until(lambda: not is_ready(service), 15)

        def is_over() -> bool:
            return service.process.poll() is not None or is_ready(service)

        over = wait_until(is_over, STUCK_S)
        end_all([stopped])
        assert over, service.log.read_text()
        what = "ended" if service.process.poll() else "was well again"
        note(
            "torchserve: SIGSTOP the only worker of an endpoint: the service "
            f"{what} after {time.monotonic() - at:.0f} s"
        )
        assert service.process.poll() in (None, 1)


def test_a_service_is_stopped_and_goes_on(
    server: str, shipped_bundle: Bundle, tmp_path: Path, small_deck: Sequence[Card], tell: Tell
) -> None:
    """Stopped and continued as a whole, as when a host is suspended, it answers all that waited."""
    with (
        running(shipped_bundle, tmp_path, server=server) as service,
        under_load(service.port, small_deck, RATE) as load,
    ):
        time.sleep(BEFORE_S)
        at, pids = time.monotonic(), tree(service.process.pid)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(PAUSE_S)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        wait_until_ready(service)
        time.sleep(AFTER_S)
        story = tell(f"{server}: SIGSTOP all for {PAUSE_S:.0f} s", load.stop(), at)

    assert (story.wrong, story.failed) == (0, 0)


@contextmanager
def running_impatiently(bundle: Bundle, folder: Path) -> Iterator[Running]:
    """A service on TorchServe whose workers have only TIMEOUT_S for a batch."""
    port, log = free_port(), folder / "serve.log"
    program = (
        "import sys; import serve.__main__, serve.torchserve.store as store;"
        f"store.ANSWER_S = {TIMEOUT_S}; sys.exit(serve.__main__.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, str(bundle.folder), "--port", str(port)]
    with log.open("w") as output, subprocess.Popen(command, stderr=output, text=True) as process:
        service = Running(process, port, log, "torchserve")
        try:
            assert wait_until(lambda: "READY" in log.read_text(), START_S), log.read_text()
            yield service
        finally:
            if process.poll() is None:
                service.stop()


def is_java(pid: int) -> bool:
    """Whether a process is the JVM."""
    return Path(f"/proc/{pid}/exe").resolve().name == "java"


def end_all(pids: Sequence[int]) -> None:
    """Kill what is left of a service."""
    for pid in filter(is_alive, pids):
        os.kill(pid, signal.SIGKILL)
