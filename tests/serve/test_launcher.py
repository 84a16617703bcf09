"""Start-up refusals and configuration; tests/e2e start real services."""

import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from serve.__main__ import allow_many_connections, locked, main, stop_on_signals
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle
from serve.endpoints import make_canaries
from serve.launcher.readiness import Readiness
from serve.launcher.settings import Settings, parse, settings_of

from ..e2e.conftest import free_port


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Restore pytest's signal handlers, which the launcher's main replaces."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_missing_bundle_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing bundle ends the command with exit code 1 and one line that names the folder."""
    assert main([str(tmp_path)]) == 1

    error = capsys.readouterr().err
    assert error.startswith(f"serve: {tmp_path} is no bundle")
    assert error.count("\n") == 1


def test_last_line_is_json_too(tmp_path: Path) -> None:
    """What collects a service's log also collects why the service ended."""
    command = [sys.executable, "-m", "serve", str(tmp_path), "--log-format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    (line,) = map(json.loads, done.stderr.splitlines())
    assert (done.returncode, line["level"], line["logger"]) == (1, "CRITICAL", "serve")
    assert line["message"].startswith(f"{tmp_path} is no bundle")


def test_public_address_needs_a_gateway(
    small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host beyond loopback is refused without --behind-gateway."""
    assert main([str(small_bundle.folder), "--host", "0.0.0.0"]) == 1  # noqa: S104

    assert "--behind-gateway" in capsys.readouterr().err


def test_taken_port_is_named(small_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the port that is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert main([str(small_bundle.folder), "--port", str(port)]) == 1

    assert f"can't listen on port {port}" in capsys.readouterr().err


def test_ignored_signals_stay_ignored() -> None:
    """Under nohup a service outlives the terminal, and in a script's background its Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    stopping = stop_on_signals()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.raise_signal(number)

    assert not stopping.wait(0.2)
    signal.raise_signal(signal.SIGTERM)
    assert stopping.wait(5)


def test_variables_stand_for_options(capsys: pytest.CaptureFixture[str]) -> None:
    """PINHOLE_* fills in what the command line doesn't say; a wrong value is refused."""
    environment = {
        "PINHOLE_PORT": "9000",
        "PINHOLE_BATCH_DELAY_MS": "7",
        "PINHOLE_BEHIND_GATEWAY": "1",
        "PINHOLE_DATA": "elsewhere",
    }

    options = parse(["bundle", "--port", "9100"], environment)
    assert (options.port, options.batch_delay_ms, options.behind_gateway) == (9100, 7, True)
    assert not parse(["bundle", "--no-behind-gateway"], environment).behind_gateway
    assert not parse(["bundle"], {"PINHOLE_BEHIND_GATEWAY": "0"}).behind_gateway
    assert parse(["bundle"], {"PINHOLE_PORT": "tcp://10.0.0.1:80"}).port == 8080  # Kubernetes

    for name, value, words in (
        ("PINHOLE_DEVICE", "tpu", "--device: invalid choice: 'tpu'"),
        ("PINHOLE_BEHIND_GATEWAY", "off", "PINHOLE_BEHIND_GATEWAY must be one of 1, true, yes"),
    ):
        with pytest.raises(SystemExit):
            parse(["bundle"], {name: value})
        assert words in capsys.readouterr().err


def test_canaries_know_the_golden_answer_from_another(shipped_bundle: Bundle) -> None:
    """In every precision: the golden picture passes, the next golden picture doesn't."""
    golden = shipped_bundle.golden()
    right, wrong = (
        write_png(np.rint(picture * 255).astype(np.uint8)) for picture in golden.reconstructions[:2]
    )
    vectors = [json.dumps({"embedding": vector.tolist()}) for vector in golden.embeddings[:2]]
    for precision in shipped_bundle.manifest.tolerances:
        canaries = make_canaries(shipped_bundle, precision)
        for endpoint in ("reconstruct", "decode"):
            assert canaries[endpoint].is_golden(right)
            assert not canaries[endpoint].is_golden(wrong)
        assert canaries["embed"].is_golden(vectors[0].encode())
        assert not canaries["embed"].is_golden(vectors[1].encode())


def test_one_golden_image_is_enough(tmp_path: Path, small_bundle: Bundle) -> None:
    """A bundle with a single golden image, from a very small dataset, still gets its canary."""
    golden = small_bundle.golden()
    arrays = golden.images, golden.embeddings, golden.reconstructions
    names = ("images", "embeddings", "reconstructions")
    first = {name: rows[:1] for name, rows in zip(names, arrays, strict=True)}
    np.savez(tmp_path / "golden.npz", **first)
    canaries = make_canaries(replace(small_bundle, folder=tmp_path), "fp32")
    right = np.rint(golden.reconstructions[0] * 255).astype(np.uint8)

    assert canaries["reconstruct"].is_golden(write_png(right))
    assert not canaries["reconstruct"].is_golden(write_png(255 - right))


def test_canary_without_an_answer(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is too slow is told from one that is gone; neither gives a wrong answer."""
    monkeypatch.setattr("serve.launcher.readiness.TIMEOUT_S", 1.0)
    canary = make_canaries(small_bundle, "fp32")["embed"]
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never answers
        settings = Settings(server="granian", port=server.getsockname()[1], workers=1)
        readiness = Readiness({"embed": canary}, settings, lambda endpoint: 1)

        assert not readiness.check()
        assert readiness.reason == "embed: the canary got no answer within 1 s"
        assert readiness.working
        assert readiness.unanswered == {"embed"}

    assert not readiness.check()
    assert readiness.reason == "embed: the canary got no answer (ConnectionError)"
    assert readiness.working


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA"
)
def test_engine_that_cannot_start_is_one_line(
    small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """The launcher refuses an engine that can't start, before any worker tries."""
    assert main([str(small_bundle.folder), "--device", "cuda", "--port", str(free_port())]) == 1

    assert "pinhole-autoencoder[gpu]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "80"], "argument --port: must be within"),
        (["--port", "65535"], "argument --port: must be within"),
        (["--workers", "0"], "argument --workers: must be a whole number from 1 to 1,024"),
        (["--workers", "99999"], "argument --workers: must be a whole number from 1 to 1,024"),
        (["--host", "127.evil.example"], "argument --host: must be an IP address"),
        (["--runtime", "tvm"], "argument --runtime: invalid choice"),
        (["--server", "granian", "--cors", "site.example"], "argument --cors: must be origins"),
        (["--server", "granian", "--cors", "https://site.example/"], "argument --cors: must be"),
        (["--server", "granian", "--cors", ","], "argument --cors: must be origins"),
        (["--server", "torchserve", "--cors", "*"], "--cors is for --server granian"),
    ],
)
def test_impossible_options_are_usage_errors(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Impossible values of options end the command with argparse's exit code 2."""
    with pytest.raises(SystemExit) as exit_info:
        parse(["bundle", *arguments], {})

    assert exit_info.value.code == 2
    assert words in capsys.readouterr().err


def test_processes_are_for_granian_on_linux(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several processes are refused in one line where they can't share a port."""
    two = {"PINHOLE_PROCESSES": "2"}
    monkeypatch.setattr("sys.platform", "linux")
    assert parse(["bundle", "--server=granian"], two).processes == 2

    for arguments, platform in (([], "linux"), (["--server=granian"], "darwin")):
        monkeypatch.setattr("sys.platform", platform)
        assert parse(["bundle", *arguments, "--processes=1"], two).processes == 1
        with pytest.raises(SystemExit):
            parse(["bundle", *arguments], two)
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.endswith("--processes 2 is for --server granian on Linux; see --workers")


def test_corrupt_bundle_is_one_line(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that was cut short is named."""
    folder = tmp_path / "bundle"
    shutil.copytree(small_bundle.folder, folder)
    (folder / "encoder.onnx").write_bytes(b"")

    assert main([str(folder)]) == 1

    error = capsys.readouterr().err
    assert error == f"serve: {folder}/encoder.onnx was changed or cut short since it was exported\n"


@pytest.mark.parametrize(
    ("name", "on_loopback", "url"),
    [
        ("127.0.0.9", True, "http://127.0.0.9:8080"),
        ("::1", True, "http://[::1]:8080"),
        ("::", False, "http://[::1]:8080"),
        ("0.0.0.0", False, "http://127.0.0.1:8080"),  # noqa: S104
    ],
)
def test_loopback_is_known_in_either_family(name: str, on_loopback: bool, url: str) -> None:
    """IPv6 has its loopback and its brackets."""
    settings = Settings(host=name)

    assert (settings.is_on_loopback, settings.inference_url) == (on_loopback, url)


def test_missing_folder_for_temporary_files_is_named(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files aren't put elsewhere instead."""
    monkeypatch.setenv("TMPDIR", "/no/such/folder")

    assert main([str(small_bundle.folder), "--port", str(free_port())]) == 1

    assert capsys.readouterr().err == (
        "serve: TMPDIR is /no/such/folder, which can't be written to: No such file or directory\n"
    )


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST"])
def test_localhost_is_an_address(name: str) -> None:
    """Granian takes addresses alone."""
    assert settings_of(parse(["bundle", "--host", name], {})).host == "127.0.0.1"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is raised on Linux")
def test_as_many_connections_as_the_host_allows() -> None:
    """Usually the limit is 1,024 at first; out of descriptors, the service would hear nobody."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0] - 1, limits[1]))
        allow_many_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_home_is_locked(tmp_path: Path) -> None:
    """While a service runs, nobody else gets the lock that systemd asks for before it cleans up."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with locked(str(tmp_path)), pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
