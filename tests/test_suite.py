"""The tests themselves: where they run, and beside whom."""

import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from .e2e.conftest import free_port

ROOT = Path(__file__).parent.parent
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def ignore_signals() -> None:
    """What a script's ``&`` and nohup do for a program."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def test_runs_in_the_background() -> None:
    """Programs that the tests interrupt hear of it, though the tests themselves ignore signals."""
    stopped = "tests/clients/test_cli.py::test_interrupt_ends_quietly"
    done = subprocess.run(
        [*PYTEST, stopped], cwd=ROOT, preexec_fn=ignore_signals, capture_output=True, timeout=300
    )

    assert done.returncode == 0, done.stdout


def test_another_run_finds_other_ports() -> None:
    """Two runs on one machine never take the same ports, though nobody listens on them yet."""
    program = "from tests.e2e.conftest import free_port; print(free_port(), flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        ours = free_port()
        other.communicate("\n", timeout=300)

    assert ours != theirs


def test_clients_are_tested_without_torch() -> None:
    """Without torch, all of tests/clients is collected, and what needs a bundle is skipped."""
    program = (
        "import sys; sys.modules.update(torch=None, torchvision=None); import pytest; "
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    needy = "tests/clients/test_extras.py::test_local_job_needs_two_extras_only"
    for chosen, told in (("tests/clients --collect-only", "collected"), (needy, "1 skipped")):
        command = [sys.executable, "-c", program, "-q", "-p", "no:cacheprovider", *chosen.split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert (done.returncode, told in done.stdout) == (0, True), done.stdout


def test_workflow_runs_what_is_there() -> None:
    """Its targets are in the Makefile, and it tries each Python that pyproject.toml names."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    tries = workflow["jobs"]["test"]["strategy"]["matrix"]["include"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    targets = {*(each["target"] for each in tries), "docker-test"}

    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {each["python"] for each in tries} == set(named)
    assert workflow["permissions"] == {"contents": "read"}
