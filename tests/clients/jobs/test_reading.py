"""The lines of docs/jobs.md that read a result, run as they stand."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import FakeRunner, run

PAGE = Path(__file__).parents[3] / "docs" / "jobs.md"


@pytest.mark.parametrize(
    ("library", "wanted"),
    [
        ("pandas", "(3, 6)"),
        ("DuckDB", "[('0', 1.0, 5.0), ('1', 1.0, 11.0), ('2', 1.0, 17.0)]"),
        ("numpy", "(3, 2)"),
    ],
)
def test_results_are_read(tmp_path: Path, library: str, wanted: str) -> None:
    """Each line gives the job's shape or rows, with pandas, DuckDB and numpy."""
    (line,) = re.findall(rf"^{library} +(.*)$", PAGE.read_text(), re.MULTILINE)
    np.save(tmp_path / "in.npy", np.arange(18, dtype=np.uint8).reshape(3, 2, 3))
    run(tmp_path / "in.npy", tmp_path / "shards", FakeRunner())
    shutil.copy(tmp_path / "shards" / "shard-000000.parquet", tmp_path / "scans.parquet")
    result = "found.fetchall()" if library == "DuckDB" else "found.shape"
    imports = f"glob, pyarrow.parquet, {library.lower()}"

    done = subprocess.run(
        [sys.executable, "-c", f"import {imports}\nfound = {line}\nprint({result})"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout.strip() == wanted, done.stderr
