"""The licence exceptions of ``make audit``."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def test_every_exception_has_a_reason_and_a_use() -> None:
    """Each line says why; and each package is one that this project still installs."""
    text = (PROJECT / "pyproject.toml").read_text()
    exceptions = tomllib.loads(text)["tool"]["pip-licenses"]["ignore-packages"]
    explained = re.findall(r'^    "([\w-]+)", *# .{10,}', text, re.MULTILINE)
    installed = re.findall(r"^([\w.-]+)==", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)

    assert set(exceptions) <= set(explained)
    assert set(exceptions) <= set(installed)
