"""The environment of each peer: made when it is first needed, in .venv-bench-NAME.

Peers are pinned, here and in constraints.txt. Three want other versions than constraints.txt has of
what they build upon; with them only the packages named here are pinned.
"""

import re
import subprocess
import sys
import venv
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
INSTALL_S = 900  # the longest that pip may take
RUNTIME = ("onnxruntime==1.32.0", "Pillow==13.0.0")
OURS = ("-c", "constraints.txt")
# Environment → what pip installs into it. Services of this project are installed as users do it.
PACKAGES = {
    "bentoml": ("bentoml==1.4.40", *RUNTIME),
    "fastapi": ("fastapi", "uvicorn[standard]", *RUNTIME, *OURS),
    "granian": ("-e", ".[granian,local]", *OURS),
    "granian-openvino": ("-e", ".[granian,openvino]", *OURS),
    "lightning": ("pytorch-lightning==2.6.6", "-e", ".[train]", *OURS),
    "litserve": ("litserve", *RUNTIME, *OURS),
    "mlserver": ("mlserver==1.7.1", "uvloop==0.21.0", *RUNTIME),  # its workers need that loop
    "ray": ("ray[serve]", *RUNTIME, *OURS),
    "torchserve": ("-e", ".[serve,cpu]", "torch-model-archiver==0.12.0", *OURS),
    "triton": ("nvidia-pytriton==0.7.0", *RUNTIME),
}


def python_of(name: str) -> str:
    """The interpreter of an environment, which is made if it isn't there.

    Raises:
        RuntimeError: pip could not install it; the message ends with pip's last line.
    """
    folder = folder_of(name)
    python, packages = folder / "bin" / "python", PACKAGES[name]
    marker = folder / "packages.txt"
    if not marker.is_file() or marker.read_text() != "\n".join(packages):
        print(f"{name}: installing into {folder.name}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, symlinks=True)
        install(python, packages)
        marker.write_text("\n".join(packages))
    return str(python)


def install(python: Path, packages: tuple[str, ...]) -> None:
    """Install packages by this interpreter's pip: the environment itself needs none.

    Raises:
        RuntimeError: pip failed or took too long.
    """
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    try:
        done = subprocess.run(
            [*pip, *packages],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"pip took longer than {INSTALL_S} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"pip could not install it: {last}")


def versions() -> str:
    """What each environment is for, and its version: those that are installed."""
    found = []
    for name, packages in PACKAGES.items():
        package = name if packages[0] == "-e" else re.split(r"[=\[]", packages[0])[0]
        sites = map(str, folder_of(name).glob("lib/*/site-packages"))
        found += [
            f"{package} {each.version}" for each in distributions(name=package, path=[*sites])
        ]
    return ", ".join(found)


def folder_of(name: str) -> Path:
    """Where an environment is."""
    return ROOT / f".venv-bench-{name}"


def size_mb(name: str) -> float:
    """What the files of an environment take on disk."""
    files = (
        path for path in folder_of(name).rglob("*") if path.is_file() and not path.is_symlink()
    )
    return sum(path.stat().st_blocks * 512 for path in files) / 1e6
