"""Nothing phones home: no file in the user's home, and no address asked for but loopback's."""

import ctypes
import errno
import fcntl
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serve.bundle.manifest import Bundle

from .conftest import running

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "clients" / "examples" / "digits"
PINHOLE = (sys.executable, "-m", "pinhole")
CLONE_NEWNET = 0x40000000  # linux/sched.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
# They would hide what the programs have to see to by themselves.
HIDING = ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


@contextmanager
def cut_off() -> Iterator[None]:
    """A network of its own for this thread and the programs it starts; it has loopback alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before:
        if libc.unshare(CLONE_NEWNET):
            pytest.skip(f"no network can be made here: {errno.errorcode[ctypes.get_errno()]}")
        try:
            with socket.socket() as any_socket:
                flags = struct.pack("16sh14x", b"lo", IFF_UP)
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, flags)
            yield
        finally:
            assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


def calls() -> int:
    """How often somebody was sought in this thread's network who isn't there.

    The kernel counts addresses to which it has no route, and datagrams to a port of loopback where
    nobody listens, as a name server often does.
    """
    folder = Path("/proc/thread-self/net")
    lines = [line.split() for line in (folder / "snmp").read_text().splitlines()]
    rows = zip(lines[::2], lines[1::2], strict=True)
    counts = {head[0]: dict(zip(head, row, strict=True)) for head, row in rows}
    new = dict(line.split() for line in (folder / "snmp6").read_text().splitlines())
    old = (counts["Ip:"]["OutNoRoutes"], counts["Udp:"]["NoPorts"])
    return sum(map(int, (*old, new["Ip6OutNoRoutes"], new["Udp6NoPorts"])))


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty home and no network; what is left in the one or sought in the other is a failure."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in HIDING:
        monkeypatch.delenv(name, raising=False)
    with cut_off():
        yield
        assert calls() == 0
    assert list(home.rglob("*")) == []


def run(*command: str | Path) -> None:
    """Run a command that succeeds."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("family", "kind", "address"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "192.0.2.1"),
        (socket.AF_INET, socket.SOCK_DGRAM, "192.0.2.1"),
        (socket.AF_INET6, socket.SOCK_STREAM, "2001:db8::1"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "2001:db8::1"),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.53"),
    ],
)
def test_calls_are_noticed(family: int, kind: int, address: str) -> None:
    """Whoever is called, and by whatever protocol, it is counted."""
    with cut_off(), socket.socket(family, kind) as caller:
        assert calls() == 0
        if caller.connect_ex((address, 53)) == 0:
            caller.send(b"?")

        assert calls() == 1


@pytest.mark.usefixtures("alone")
def test_export_and_jobs(tmp_path: Path) -> None:
    """Export, a job in this process and its pages, under names with spaces."""
    bundle, rows = tmp_path / "a bundle", tmp_path / "some rows.parquet"

    run(sys.executable, "-m", "export", ROOT / "weights" / "mnist", "--out", bundle)
    run(*PINHOLE, "embed", DIGITS, "--out", rows, "--local", bundle, "--score")
    run(*PINHOLE, "atlas", rows, "--out", tmp_path / "an atlas.html")
    run(*PINHOLE, "report", rows, "--out", tmp_path / "report.html")


@pytest.mark.usefixtures("alone")
def test_service_and_command(shipped_bundle: Bundle, server: str, tmp_path: Path) -> None:
    """A service that answers, swaps and stops, and the commands that ask it."""
    with running(shipped_bundle, tmp_path, "--workers=1", server=server) as service:
        run(*PINHOLE, "health", "--url", service.url)
        run(*PINHOLE, "score", DIGITS / "7-00000.png", "--url", service.url)
        run(*PINHOLE, "embed", DIGITS, "--out", tmp_path / "rows.parquet", "--url", service.url)
        swap = (sys.executable, "-m", "serve.launcher.swap", shipped_bundle.folder)
        run(*swap, "--port", str(service.port))
        assert service.stop() == 0
