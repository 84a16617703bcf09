"""What the README shows works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Running

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("language", ["bash", "python"])
def test_blocks_run(service: Running, tmp_path: Path, language: str) -> None:
    """Each code block, with nothing changed but the address."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    (tmp_path / "clients").symlink_to(README.parent / "clients")
    program = ["bash", "-ec"] if language == "bash" else [sys.executable, "-c"]

    done = subprocess.run(
        [*program, block.replace("http://127.0.0.1:8080", service.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    if language == "python":
        assert re.fullmatch(
            r"\(-?\d+\.\d\d, -?\d+\.\d\d\), mse 0\.\d{4}, outlier: \w+\n", done.stdout
        )
    else:
        assert '{"embedding":[' in done.stdout
        assert '"anomaly":{"percentile":' in done.stdout
        for name in ("remembered.png", "drawn.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
