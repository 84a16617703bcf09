"""The README's lines that read a result, as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import FakeRunner, run

README = Path(__file__).parents[3] / "README.md"


@pytest.mark.parametrize(
    ("library", "wanted"),
    [
        ("pandas", "(3, 4)"),
        ("DuckDB", "[('0', 1.0, 5.0), ('1', 1.0, 11.0), ('2', 1.0, 17.0)]"),
        ("numpy", "(3, 2)"),
    ],
)
def test_results_are_read(tmp_path: Path, library: str, wanted: str) -> None:
    """By pandas, DuckDB and numpy; the shapes, or the rows, are the job's."""
    (line,) = re.findall(rf"^{library} +(.*)$", README.read_text(), re.MULTILINE)
    np.save(tmp_path / "in.npy", np.arange(18, dtype=np.uint8).reshape(3, 2, 3))
    run(tmp_path / "in.npy", tmp_path / "out", FakeRunner())
    (tmp_path / "out" / "shard-000000.parquet").rename(tmp_path / "scans.parquet")
    result = "found.fetchall()" if library == "DuckDB" else "found.shape"
    imports = "pyarrow.parquet, " * (library == "numpy") + library.lower()

    done = subprocess.run(
        [sys.executable, "-c", f"import {imports}\nfound = {line}\nprint({result})"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout.strip() == wanted, done.stderr
