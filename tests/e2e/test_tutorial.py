"""docs/tutorial.md, command by command, in an empty folder."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

from .conftest import free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
MOST_PICTURE_BYTES = 100_000
END = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"  # Whatever fails, the service ends.


def test_every_command_runs(tmp_path: Path) -> None:
    """In their order, as they stand but for the address; what doesn't belong is found."""
    port, text = free_port(), PAGE.read_text()
    commands = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert "http://127.0.0.1:8080" in commands
    url = f"http://127.0.0.1:{port}"
    (tmp_path / "clients").symlink_to(ROOT / "clients")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = {"PATH": programs, "PYTHONPATH": ROOT, "PINHOLE_PORT": str(port), "PINHOLE_URL": url}

    done = subprocess.run(
        ["bash", "-euc", END + commands.replace("http://127.0.0.1:8080", url)],
        cwd=tmp_path,
        env={**os.environ, **ours},
        capture_output=True,
        text=True,
        timeout=900,
    )

    assert done.returncode == 0, done.stderr
    with (tmp_path / "odd.csv").open(newline="") as file:
        odd = list(csv.DictReader(file))[:2]
    assert {row["path"] for row in odd} == {"7-00000.png", "4-00004.png"}
    assert (tmp_path / "odd.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "new.html").is_file()


def test_its_pictures_are_there_and_small() -> None:
    """What the page shows are files, of 100 kB in all."""
    shown = re.findall(r"\]\((pictures/.*?)\)", PAGE.read_text())
    sizes = [(PAGE.parent / name).stat().st_size for name in shown]

    assert shown
    assert sum(sizes) < MOST_PICTURE_BYTES
