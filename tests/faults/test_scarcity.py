"""No room on the disk, no memory, and bundles that have been damaged."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from serve.bundle.manifest import Bundle
from serve.launcher.swap import main as swap
from tests.e2e.conftest import START_S, free_port, running, wait_until
from tests.faults.conftest import Story, is_ready, wait_until_ready
from tests.faults.load import Outcome, under_load
from tests.faults.processes import tree
from tests.faults.traffic import Card

RATE = 20.0  # requests a second of the load
LARGE, LARGE_RATE = 60, 4.0  # requests that need memory, and how many a second
DISK = "64m"  # room for two bundles and what a server unpacks
BEFORE_S, DURING_S, AFTER_S = 3.0, 6.0, 3.0  # of load around a fault
ROOM_BYTES = 200_000  # less than a bundle; with none at all, Python looks for another TMPDIR
MORE_BYTES = 1 << 20  # all the memory that a service may still take when it is taken away
NO_LIMIT = str(1 << 50)
GROUPS = Path("/sys/fs/cgroup")

Tell = Callable[[str, Sequence[Outcome], float], Story]


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small disk as TMPDIR; skipped where none can be mounted."""
    folder = tempfile.mkdtemp(prefix="faults-")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "faults", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        Path(folder).rmdir()
        pytest.skip("no disk can be mounted here: that takes root")
    monkeypatch.setenv("TMPDIR", folder)
    yield Path(folder)
    subprocess.run(["umount", folder], check=True)
    Path(folder).rmdir()


def fill(disk: Path) -> Path:
    """Write until nothing more fits; returns the file to delete."""
    file = disk / "full"
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as rubbish:
        while True:
            rubbish.write(bytes(1 << 12))
    return file


def test_the_disk_is_full(
    server: str,
    shipped_bundle: Bundle,
    small_bundle: Bundle,
    small_disk: Path,
    tmp_path: Path,
    small_deck: Sequence[Card],
    tell: Tell,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Callers notice nothing; a swap is refused in a line, and works once there is room again."""
    with (
        running(shipped_bundle, tmp_path, server=server) as service,
        under_load(service.port, small_deck, RATE) as load,
    ):
        port = ("--port", str(service.port))
        time.sleep(BEFORE_S)
        at, full = time.monotonic(), fill(small_disk)
        time.sleep(DURING_S)
        assert swap([str(small_bundle.folder), *port]) == 1
        assert is_ready(service)
        full.unlink()
        time.sleep(AFTER_S)
        story = tell(f"{server}: the disk is full for {DURING_S:.0f} s", load.stop(), at)
        assert swap([str(small_bundle.folder), *port]) == 0

    assert (story.failed, story.wrong) == (0, 0)
    (refusal,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in refusal


def test_no_room_to_start(server: str, shipped_bundle: Bundle, small_disk: Path) -> None:
    """A service that finds no room doesn't start, and says so in one line."""
    full = fill(small_disk)
    os.truncate(full, full.stat().st_size - ROOM_BYTES)

    code, said = start(shipped_bundle.folder, server)

    assert code == 1
    assert "No space left on device" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["encoder.onnx", "manifest.json", "golden.npz"])
def test_a_damaged_bundle_is_not_served_again(
    server: str, shipped_bundle: Bundle, tmp_path: Path, name: str
) -> None:
    """A file that was damaged while it was being served: the restart is refused in one line."""
    folder = tmp_path / "bundle"
    shutil.copytree(shipped_bundle.folder, folder)
    damage(folder / name)

    code, said = start(folder, server)

    assert (code, said.count("\n")) == (1, 1)
    assert name in said


def test_swap_to_a_damaged_bundle(
    server: str,
    shipped_bundle: Bundle,
    tmp_path: Path,
    small_deck: Sequence[Card],
    tell: Tell,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is refused in one line, and no caller notices, though the old bundle is damaged too."""
    served, next_one = tmp_path / "served", tmp_path / "next"
    for folder in (served, next_one):
        shutil.copytree(shipped_bundle.folder, folder)
    damage(next_one / "decoder.onnx")
    with (
        running(Bundle(served, shipped_bundle.manifest), tmp_path, server=server) as service,
        under_load(service.port, small_deck, RATE) as load,
    ):
        time.sleep(BEFORE_S)
        at = time.monotonic()
        damage(served / "encoder.onnx")
        assert swap([str(next_one), "--port", str(service.port)]) == 1
        time.sleep(AFTER_S)
        assert is_ready(service)
        story = tell(f"{server}: swap to a damaged bundle", load.stop(), at)

    assert (story.failed, story.wrong, story.late) == (0, 0, 0)
    (refusal,) = capsys.readouterr().err.splitlines()
    assert "decoder.onnx" in refusal


def test_memory_is_taken_away(
    server: str, shipped_bundle: Bundle, tmp_path: Path, deck: Sequence[Card], tell: Tell
) -> None:
    """What the kernel kills for want of memory returns by itself, or the launcher has ended."""
    large = sorted(deck, key=lambda card: card.images)[-LARGE:]
    with (
        memory_group() as (members, limit),
        running(shipped_bundle, tmp_path, server=server) as service,
        under_load(service.port, large, LARGE_RATE) as load,
    ):
        time.sleep(BEFORE_S)
        at = time.monotonic()
        limit.write_text(str(MORE_BYTES))
        before = tree(service.process.pid)
        for pid in before:
            members.write_text(str(pid))
        ended = wait_until(lambda: service.process.poll() is not None, DURING_S)
        limit.write_text(NO_LIMIT)
        if ended:
            assert service.process.returncode in (1, -signal.SIGKILL)
            with running(shipped_bundle, tmp_path, server=server, port=service.port):
                time.sleep(AFTER_S)
                outcomes = load.stop()
        else:
            wait_until_ready(service)
            assert tree(service.process.pid) != before, "nothing was killed"
            time.sleep(AFTER_S)
            outcomes = load.stop()
        after = ", then a restart" if ended else ""
        story = tell(f"{server}: no memory for {DURING_S:.0f} s{after}", outcomes, at)

    assert story.wrong == 0


@contextlib.contextmanager
def memory_group() -> Iterator[tuple[Path, Path]]:
    """A cgroup of its own: the files for its members and for its limit, of version 2 or 1.

    New memory of its members counts; what they had before stays with their old group.
    """
    new = (GROUPS / "cgroup.controllers").is_file()
    folder = (GROUPS if new else GROUPS / "memory") / f"pinhole-faults-{os.getpid()}"
    limit = folder / ("memory.max" if new else "memory.limit_in_bytes")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error.strerror}")
    try:
        if not limit.exists():
            pytest.skip("a cgroup that is made here doesn't limit memory")
        yield folder / "cgroup.procs", limit
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), 10)
        folder.rmdir()


def start(folder: Path, server: str) -> tuple[int, str]:
    """Start a service that can't; its exit code, and what it says on stderr."""
    where = ["--port", str(free_port()), "--server", server]
    command = [sys.executable, "-m", "serve", str(folder), *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
    return done.returncode, done.stderr


def damage(file: Path) -> None:
    """Change a byte in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x55
    file.write_bytes(data)
