"""``make demo`` on the shipped weights."""

import re
import subprocess
import sys
from pathlib import Path

import PIL.Image

from serve.bundle.manifest import Bundle

DEMO = Path(__file__).parents[2] / "clients" / "examples" / "demo.py"
ROW = re.compile(r"^(\d-\d{5}\.png|photograph\.jpg) .*?((?: \d){10})$", re.MULTILINE)


def test_demo_knows_every_digit(shipped_bundle: Bundle, tmp_path: Path) -> None:
    """The ten nearest known digits have the label of each file, the photograph of a 3 included."""
    command = [sys.executable, DEMO, shipped_bundle.folder, "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)

    assert done.returncode == 0, done.stderr
    known = [
        (name.replace("photograph", "3")[0], labels) for name, labels in ROW.findall(done.stdout)
    ]
    assert known == [(digit, 10 * f" {digit}") for digit in "000111222333444555666777888999" + "3"]
    for name, width in (("digits.png", 1026), ("photograph.png", 864)):
        with PIL.Image.open(tmp_path / name) as picture:
            assert picture.width == width
