"""Which package may import which: data flows one way through the packages, and so do imports."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("train", "export", "serve", "pinhole", "bench", "tests")

# folder → the modules of this project that it may import, with their submodules
ALLOWED = {
    "train": ("train", "serve.bundle"),  # files are read and scored by the same functions
    "export": ("export", "train", "serve.bundle"),
    "serve/bundle": ("serve.bundle",),
    "serve": ("serve",),
    "clients/pinhole": ("pinhole", "serve.bundle"),
    "clients/examples": ("pinhole",),
}


def imports_of(path: Path) -> Iterator[str]:
    """Every module a file imports, lazily or not, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_along_the_arrows_only(room: str) -> None:
    """A folder imports nothing of this project but what ALLOWED says."""
    files = list((ROOT / room).rglob("*.py"))
    offences = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports_of(path)
        if name.split(".")[0] in OURS
        and not any(name == place or name.startswith(place + ".") for place in ALLOWED[room])
    ]
    assert files
    assert offences == []


@pytest.mark.parametrize("module", ["serve.bundle.engine.onnx", "export.graphs"])
def test_nothing_is_noted_in_the_users_home(module: str, tmp_path: Path) -> None:
    """onnxruntime, imported by us, writes no file of what it would report to its maker."""
    variables = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", f"import {module}"], env=variables, cwd=ROOT, check=True)

    assert list(tmp_path.rglob("*")) == []


def test_bundle_runs_without_the_rest() -> None:
    """Reading images and asking what onnxruntime can do loads serve.bundle alone, without torch."""
    program = """
import sys, serve.bundle.images, serve.bundle.score
from serve.bundle.engine.opening import available
available("onnxruntime")
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("serve", "torch")))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    loaded = done.stdout.split()
    assert "serve.bundle.engine.onnx" in loaded
    assert [name for name in loaded if not f"{name}.".startswith("serve.bundle.")] == ["serve"]
