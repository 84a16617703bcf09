"""Starting, failing, recovering and stopping, on a service of each test's own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests

from export.archive import SERVER_SETTINGS, write_archives
from pinhole import Client
from serve.bundle.engine.host import processor_has_bf16
from serve.bundle.engine.opening import open_engine
from serve.bundle.images import write_png
from serve.bundle.limits import MAX_IMAGES
from serve.bundle.manifest import Bundle
from serve.torchserve.java import find_java
from train.dataset import Dataset

from .conftest import START_S, STOP_S, Running, free_port, running, wait_until


def test_a_healthy_start_looks_healthy(service: Running) -> None:
    """Until it is ready, nothing on stdout or stderr reads like a failure."""
    start, ready, _ = service.log.read_text().partition(" READY ")

    assert ready
    assert not re.search("warn|fail|error|not available|no proper answer", start, re.IGNORECASE)


def test_a_worker_dies_and_returns(small_bundle: Bundle, tmp_path: Path) -> None:
    """Readiness is false while an endpoint lacks a worker, and true again by itself."""
    with running(small_bundle, tmp_path) as service:
        os.kill(service.worker_pid("decode"), signal.SIGKILL)

        assert wait_until(lambda: service.readiness().status_code == 503, 2)
        assert service.readiness().json()["reason"].startswith("decode: ")
        assert wait_until(lambda: service.readiness().ok, 10)
        assert service.stop() == 0
        assert "waiting: decode" in service.log.read_text()
        assert "ready again" in service.log.read_text()


def test_torchserve_dies(small_bundle: Bundle, tmp_path: Path) -> None:
    """The launcher notices, says so and exits 1, so that a supervisor can start it anew."""
    with running(small_bundle, tmp_path, "--workers=1") as service:
        children = f"/proc/{service.process.pid}/task/{service.process.pid}/children"
        (jvm,) = Path(children).read_text().split()
        os.kill(int(jvm), signal.SIGKILL)

        assert service.process.wait(10) == 1
        assert "TorchServe died" in service.log.read_text()


def test_the_launcher_is_killed(server: str, small_bundle: Bundle, tmp_path: Path) -> None:
    """Nothing of a killed service goes on listening, and its ports can be used again at once."""
    port = free_port()
    for _ in range(2):
        with running(small_bundle, tmp_path, "--workers=1", port=port, server=server) as service:
            service.process.kill()
            service.process.wait()

            def is_free() -> bool:
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) != 0

            assert wait_until(is_free, 5)


def test_stops_once_everything_is_answered(
    server: str, shipped_bundle: Bundle, tmp_path: Path
) -> None:
    """After SIGTERM, readiness is false at once, and what came in before is still answered."""
    images = np.zeros((1_000, 1, 28, 28), np.uint8)
    with (
        running(shipped_bundle, tmp_path, server=server) as service,
        Client(service.url, timeout_s=60) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = [pool.submit(client.embed, images) for _ in range(16)]
        time.sleep(0.5)  # for all of them to reach TorchServe, and not to be answered
        assert not all(answer.done() for answer in answers)

        service.process.terminate()

        assert wait_until(lambda: service.readiness().status_code == 503, 2)
        assert [answer.result().shape for answer in answers] == [(1_000, 2)] * 16
        assert service.process.wait(STOP_S) == 0
        assert "requests may be lost" not in service.log.read_text()


def test_two_side_by_side(
    server: str, shipped_bundle: Bundle, tmp_path: Path, digits: Dataset
) -> None:
    """Services of two runtimes and precisions agree, and either goes on when the other stops."""
    image = digits.test_images[:1].numpy()
    precision = "bf16" if processor_has_bf16() else "fp32"
    choice = ("--workers=1", "--runtime=torchscript", "--device=cpu", f"--precision={precision}")
    for name in ("onnx", "script"):
        (tmp_path / name).mkdir()
    with (
        running(shipped_bundle, tmp_path / "onnx", "--workers=1", server=server) as first,
        running(shipped_bundle, tmp_path / "script", *choice, server=server) as second,
        Client(first.url) as one,
        Client(second.url) as other,
    ):
        allowed = shipped_bundle.manifest.tolerances[precision].embedding
        assert one.embed(image) == pytest.approx(other.embed(image), abs=allowed)
        assert (one.health().precision, other.health().precision) == ("fp32", precision)
        assert f"torchscript cpu in {precision}" in second.log.read_text()

        assert first.stop() == 0

        assert other.embed(image).shape == (1, 2)


def test_archive_runs_in_a_stock_torchserve(
    small_bundle: Bundle, tmp_path: Path, digits: Dataset
) -> None:
    """Archives alone, where this project isn't installed, answer as ever, at any length.

    The reply to decode is over TorchServe's own limit of 6,553,500 bytes, which would kill the
    worker without SERVER_SETTINGS.
    """
    archives = write_archives(small_bundle, tmp_path / "archives")
    assert [path.name for path in archives] == ["embed.mar", "reconstruct.mar", "decode.mar"]
    image = digits.test_images[0].numpy()

    vectors = {"name": "embeddings", "datatype": "FP32", "shape": [MAX_IMAGES, 2]}
    longest = {"inputs": [{**vectors, "data": [0.1] * (2 * MAX_IMAGES)}]}

    with stock_torchserve(tmp_path / "archives", tmp_path) as url:
        one = requests.post(f"{url}/predictions/embed", write_png(image), timeout=30)
        many = requests.post(f"{url}/predictions/embed", json={"images": ["broken"]}, timeout=30)
        drawn = requests.post(f"{url}/v2/models/decode/infer", json=longest, timeout=120)

    expected = open_engine(small_bundle, "onnxruntime", "cpu").embed(image[None])[0]
    allowed = small_bundle.manifest.tolerances["fp32"].embedding
    assert np.array(one.json()["embedding"]) == pytest.approx(expected, abs=allowed)
    assert many.json()["errors"][0]["type"] == "InvalidImage"
    assert drawn.json()["outputs"][0]["shape"] == [MAX_IMAGES, 1, 28, 28]
    assert len(drawn.content) > 6_553_500


@contextmanager
def stock_torchserve(archives: Path, folder: Path) -> Iterator[str]:
    """TorchServe as its own manual starts it, on two of the archives; yields its URL."""
    port, log = free_port(), folder / "torchserve.log"
    config = folder / "config.properties"
    config.write_text(
        f"inference_address=http://127.0.0.1:{port}\n"
        f"management_address=http://127.0.0.1:{port + 1}\n"
        f"metrics_address=http://127.0.0.1:{port + 2}\n"
        f"grpc_inference_port={port + 4}\ngrpc_management_port={port + 5}\n" + SERVER_SETTINGS
    )
    python, environment = python_without_this_project(folder)
    command = [
        *(python, "-m", "ts.model_server", "--start", "--foreground", "--ncs"),
        *("--model-store", archives, "--models", "embed=embed.mar", "decode=decode.mar"),
        *("--ts-config", config, "--disable-token-auth"),
    ]
    models = [f"http://127.0.0.1:{port + 1}/models/{name}" for name in ("embed", "decode")]
    with (
        log.open("w") as output,
        subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                found = [requests.get(url, timeout=5).json()[0]["workers"][0] for url in models]
                return all(worker["status"] == "READY" for worker in found)
            except (requests.ConnectionError, LookupError):
                return False

        try:
            assert wait_until(is_ready, START_S), log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def python_without_this_project(folder: Path) -> tuple[Path, dict[str, str]]:
    """An interpreter and its environment that see every installed package but not this checkout.

    The checkout is installed editable, by a .pth file, and those count in site-packages only, not
    on PYTHONPATH.
    """
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    (folder / "tmp").mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": next(path for path in sys.path if path.endswith("site-packages")),
        "JAVA_HOME": str(find_java().resolve().parent.parent),
        "TEMP": str(folder / "tmp"),
        "TMPDIR": str(folder / "tmp"),
        "LOG_LOCATION": str(folder),
        "METRICS_LOCATION": str(folder),
    }
    hidden = folder / "hidden"  # hides prometheus_client, which a stock TorchServe may lack
    hidden.mkdir()
    (hidden / "prometheus_client.py").write_text("raise ImportError('not in a stock TorchServe')")
    environment["PYTHONPATH"] = f"{hidden}:{environment['PYTHONPATH']}"
    unseen = subprocess.run(
        [python, "-c", "import serve"], env=environment, cwd=folder, capture_output=True
    )
    assert b"No module named 'serve'" in unseen.stderr
    return python, environment


def test_no_caller_writes_lines_of_the_log(service: Running) -> None:
    """What TorchServe can't parse it repeats in its log: in one line, cut short."""
    forged = "2026-11-28 01:00:00,000 CRITICAL serve: gone"
    requests.post(
        f"{service.url}/predictions/embed",
        f"%zz\n{forged}\n{'x' * 99_999}=1",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=10,
    )

    lines = service.log.read_text().splitlines()
    told = [line for line in lines if "HttpRequestHandler" in line]
    assert len(told) == (1 if service.server == "torchserve" else 0)
    assert not any(line.startswith(forged) for line in lines)
    assert max(map(len, lines)) < 5_000


def test_log_for_machines(server: str, small_bundle: Bundle, tmp_path: Path) -> None:
    """With --log-format json, each line is an object, once Java has printed some as it starts."""
    with running(
        small_bundle, tmp_path, "--workers=1", "--log-format=json", server=server
    ) as service:
        url = f"{service.url}/predictions/embed"
        assert requests.post(url, b"broken", timeout=10).status_code == 400
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert not requests.post(url, b"a=%zz", headers=form, timeout=10).ok  # Java's own trouble
        assert service.stop() == 0

        written = service.log.read_text().splitlines()
    ready = next(place for place, line in enumerate(written) if "READY" in line)
    lines = [json.loads(line) for line in written[ready:]]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    (refusal,) = (line for line in lines if "bad=InvalidImage:1" in line["message"])
    assert (refusal["level"], refusal["logger"]) == ("WARNING", "serve.journal")
