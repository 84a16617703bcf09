"""A service on Granian with two processes: the promises of one process hold for both."""

import json
import os
import resource
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from pinhole import Client
from serve.bundle.engine.opening import open_engine
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle
from serve.launcher.swap import main as swap

from .conftest import STOP_S, Running, running, wait_until
from .test_swap import QUESTIONS, digest_now, under_load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="--processes is for Linux")

TWO = ("--processes", "2")
MANY = 24  # new connections, of which each process surely gets some: 1 in 2**23 that it doesn't


def follower_of(service: Running) -> int:
    """The process beside the first."""
    children = f"/proc/{service.process.pid}/task/{service.process.pid}/children"
    (pid,) = Path(children).read_text().split()
    return int(pid)


def test_answers_pages_metrics_and_log(shipped_bundle: Bundle, tmp_path: Path) -> None:
    """Both processes give the same answers and pages, count on one page and log in one format."""
    image = np.full((1, 28, 28), 90, np.uint8)
    expected = open_engine(shipped_bundle, "onnxruntime", "cpu").embed(image[None])[0]
    allowed = shipped_bundle.manifest.tolerances["fp32"].embedding
    with running(shipped_bundle, tmp_path, *TWO, "--log-format=json", server="granian") as service:
        pages = {
            path: {requests.get(service.url + path, timeout=10).text for _ in range(MANY)}
            for path in ("/ready", "/v2/models/embed", "/map.json")
        }
        right, broken = (
            [
                requests.post(service.url + "/predictions/embed", body, timeout=10)
                for _ in range(MANY)
            ]
            for body in (write_png(image), b"broken")
        )
        metrics = requests.get(f"http://127.0.0.1:{service.port + 3}/metrics", timeout=10).text
        assert service.stop() == 0

    assert pages["/ready"] == {'{"ready":true,"reason":null}'}
    assert [len(found) for found in pages.values()] == [1, 1, 1]
    for reply in right:
        assert np.array(reply.json()["embedding"]) == pytest.approx(expected, abs=allowed)
    assert len({reply.headers["X-Request-Id"] for reply in right + broken}) == 2 * MANY
    samples = {
        (sample.name, sample.labels.get("reason")): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    assert samples["pinhole_bad_total", "InvalidImage"] == MANY
    assert samples["pinhole_ready", None] == 1
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    told = [line["message"] for line in lines if "bad=none" in line["message"]]
    assert sum("untold=0" in line for line in told) == 2  # the first batch of each process


def test_swap_loses_no_request(
    shipped_bundle: Bundle,
    small_bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both processes swap, without a failed request; or neither does, where one of them can't."""
    old, new = shipped_bundle.manifest.digest, small_bundle.manifest.digest

    def digests() -> set[str]:
        return {digest_now(service, "embed") for _ in range(MANY)}

    with running(shipped_bundle, tmp_path, *TWO, server="granian") as service:
        port = ("--port", str(service.port))
        with under_load(service) as seen:
            assert swap([str(small_bundle.folder), *port]) == 0
            assert digests() == {new}
            assert swap(["--rollback", *port]) == 0
            assert digests() == {old}
        assert {status for _, status, _ in seen} == {200}
        assert {digest for _, _, digest in seen} == {old, new}
        assert {endpoint for endpoint, _, _ in seen} == set(QUESTIONS)

        follower = follower_of(service)
        files = resource.prlimit(follower, resource.RLIMIT_NOFILE)
        resource.prlimit(follower, resource.RLIMIT_NOFILE, (1, files[1]))  # it can open no file
        assert swap([str(small_bundle.folder), *port]) == 1
        resource.prlimit(follower, resource.RLIMIT_NOFILE, files)

        assert "swap: process 2 of 2: " in capsys.readouterr().err
        assert digests() == {old}
        assert wait_until(lambda: service.readiness().ok, 10)
        assert swap([str(small_bundle.folder), *port]) == 0
        assert digests() == {new}


def test_follower_dies(small_bundle: Bundle, tmp_path: Path) -> None:
    """The service says so and exits 1, so that a supervisor can start it anew."""
    with running(small_bundle, tmp_path, *TWO, server="granian") as service:
        os.kill(follower_of(service), signal.SIGKILL)

        assert service.process.wait(10) == 1
        told = service.log.read_text().splitlines()[-1]
        assert told == "serve: process 2 of 2 ended with exit code -9"


def test_follower_ends_with_the_leader(small_bundle: Bundle, tmp_path: Path) -> None:
    """Where the first process is killed, nothing goes on listening."""
    with running(small_bundle, tmp_path, *TWO, server="granian") as service:
        service.process.kill()
        service.process.wait()

        def is_free() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", service.port)) != 0

        assert wait_until(is_free, 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_once_everything_is_answered(
    shipped_bundle: Bundle, tmp_path: Path, number: signal.Signals
) -> None:
    """What came in before is answered, also where every process gets the signal, as from Ctrl-C."""
    images = np.zeros((1_000, 1, 28, 28), np.uint8)
    with (
        running(shipped_bundle, tmp_path, *TWO, server="granian") as service,
        Client(service.url, timeout_s=60) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = [pool.submit(client.embed, images) for _ in range(16)]
        time.sleep(0.5)  # for all of them to come in, and not to be answered
        assert not all(answer.done() for answer in answers)

        if number == signal.SIGINT:
            os.kill(follower_of(service), number)
        service.process.send_signal(number)

        assert wait_until(lambda: service.readiness().status_code == 503, 2)
        assert [answer.result().shape for answer in answers] == [(1_000, 2)] * 16
        assert service.process.wait(STOP_S) == 0
        assert "requests may be lost" not in service.log.read_text()
