"""The Makefile's targets that decide something by themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_a_bundle_is_exported_when_its_checkpoint_changes(tmp_path: Path) -> None:
    """Not again where nothing has changed; but where another checkpoint is named."""
    bundle, checkpoints = tmp_path / "bundle", [tmp_path / name for name in ("a", "b")]
    for checkpoint in checkpoints:
        checkpoint.mkdir()
        (checkpoint / "card.json").touch()
    bundle.mkdir()

    def exports(checkpoint: Path) -> bool:
        command = ["make", "-s", "-o", ".venv/ready", "export", "PY=echo", f"BUNDLE={bundle}/"]
        named = f"CHECKPOINT={checkpoint}"
        told = subprocess.check_output([*command, named], cwd=ROOT, text=True, timeout=60)
        if exported := f"-m export {checkpoint} --out {bundle}\n" in told:
            (bundle / "manifest.json").touch()
        return exported

    one, other = checkpoints
    assert [exports(one), exports(one)] == [True, False]
    (one / "card.json").touch()
    assert [exports(one), exports(one)] == [True, False]
    assert [exports(other), exports(one), exports(one)] == [True, True, False]
