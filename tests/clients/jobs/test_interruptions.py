"""Interrupted jobs, and places that lack what a job would use: it goes on, or says why not."""

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow.parquet as pq
import pytest

from pinhole.cli import main
from pinhole.jobs.folder import former_shards
from pinhole.jobs.formats import FORMATS
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle

from .conftest import FakeRunner, run
from .services import Handler, listening

Make = Callable[[Sequence[bytes]], Path]
PINHOLE = [sys.executable, "-m", "pinhole"]


class Stalling(Handler):
    """Embeds the files of one request, and keeps all further requests waiting."""

    requests: list[int]

    def begin(self, count: int) -> None:
        self.requests.append(count)
        if len(self.requests) > 1:
            time.sleep(60)


@pytest.fixture
def stalling() -> Iterator[str]:
    """The URL of a service that stalls."""
    Stalling.requests = []
    with listening(Stalling) as url:
        yield url


def stopped(job: "subprocess.Popen[str]", number: int) -> tuple[int, list[str], float]:
    """Send a signal to a job; returns its exit code, what it said, and how long it took to end."""
    job.send_signal(number)
    started = time.monotonic()
    said = job.communicate(timeout=60)[1]
    return job.returncode, said.splitlines(), time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stalled_service_holds_no_one_back(
    folder: Make, tmp_path: Path, stalling: str, number: int
) -> None:
    """Ctrl-C is heard at once; requests that are under way are left; what was answered is kept."""
    images, out = folder([b"%04d" % index for index in range(1_300)]), tmp_path / "out"
    command = [*PINHOLE, "embed", str(images), "--out", str(out), "--url", stalling]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        # Four requests are sent at first; the fifth is sent once the first answer has come.
        while len(Stalling.requests) < 5:
            assert job.poll() is None
            time.sleep(0.01)
        time.sleep(0.5)

        code, said, seconds = stopped(job, number)

    assert code == 128 + number
    assert said == ["pinhole: stopping", "pinhole: stopped; run the same command again to go on"]
    assert seconds < 5  # One second on a machine that has nothing else to do.
    assert sum(pq.read_metadata(path).num_rows for path in former_shards(out)) == 256
    runner = FakeRunner()
    run(images, out, runner, rows=10_000)
    assert len(runner.embedded) == 1_300 - 256


def test_a_second_interrupt_is_final() -> None:
    """Whatever a job still does when Ctrl-C comes again, it ends on the spot."""
    program = """if True:
        import signal
        from pinhole.commands.interrupts import telling_interrupts
        with telling_interrupts():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)
                print("writing what is done")
    """

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    said = (done.returncode, done.stdout, done.stderr)
    assert said == (-signal.SIGINT, "", "pinhole: stopping\n")


def test_hang_up_under_nohup(folder: Make, tmp_path: Path, stalling: str) -> None:
    """A signal that is ignored stays ignored."""
    images, out = folder([b"%03d" % index for index in range(300)]), tmp_path / "out"
    command = ["nohup", *PINHOLE, "embed", str(images), "--out", str(out), "--url", stalling]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        while len(Stalling.requests) < 2:
            assert job.poll() is None
            time.sleep(0.01)
        job.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(1)
        code, said, _ = stopped(job, signal.SIGINT)

    assert (code, said[-1]) == (130, "pinhole: stopped; run the same command again to go on")


@pytest.fixture
def embed(tmp_path: Path, small_bundle: Bundle) -> list[str]:
    """The command that embeds an image whose name isn't ASCII, except for OUT."""
    images = tmp_path / "Bücher 本"
    images.mkdir()
    (images / "é.png").write_bytes(write_png(np.zeros((1, 28, 28), np.uint8)))
    local = ["--local", str(small_bundle.folder), "--device", "cpu"]
    return [*PINHOLE, "embed", str(images), *local, "--out"]


def test_interrupted_in_this_process(tmp_path: Path, embed: list[str]) -> None:
    """A job without a service ends as soon."""
    pixels = np.random.default_rng(0).integers(0, 256, (400_000, 28, 28), np.uint8)
    np.save(tmp_path / "in.npy", pixels)
    out = tmp_path / "out"
    embed[embed.index("embed") + 1] = str(tmp_path / "in.npy")
    with subprocess.Popen([*embed, str(out)], stderr=subprocess.PIPE, text=True) as job:
        while not (out / "_job.json").exists():
            assert job.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)

        code, said, seconds = stopped(job, signal.SIGINT)

    assert (code, said[0]) == (130, "pinhole: stopping")
    assert seconds < 5


def meet_a_finaliser() -> None:
    """Python drops what a finaliser raises."""

    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    Finalised()


def meet_a_lock() -> None:
    """As threading.Condition does that is interrupted while it takes its lock again."""
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    raise RuntimeError("release unlocked lock")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("interrupt", [meet_a_finaliser, meet_a_lock])
def test_interruption_that_python_loses(
    tmp_path: Path,
    embed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    interrupt: Callable[[], None],
) -> None:
    """Wherever a signal meets Python, it ends the job."""
    seen: list[int] = []

    @contextlib.contextmanager
    def interrupting(_: int) -> Iterator[Callable[[int], None]]:
        def advance(count: int) -> None:
            seen.append(count)
            if len(seen) == 1:
                interrupt()

        yield advance

    monkeypatch.setattr("pinhole.progress.job_progress", interrupting)

    assert (main([*embed[3:], str(tmp_path / "out")]), seen) == (130, [0])


@pytest.mark.parametrize(
    ("redirection", "code", "words"),
    [(">&-", 0, ""), (">&- 2>&-", 0, ""), ("> /dev/full", 2, "No space left on device")],
)
def test_nowhere_to_say_it(
    tmp_path: Path, embed: list[str], redirection: str, code: int, words: str
) -> None:
    """The result is there; what can't be said is one line, not a traceback."""
    script = f'"$@" {redirection}'

    done = subprocess.run(
        ["sh", "-c", script, "sh", *embed, str(tmp_path / "o.csv")], capture_output=True, text=True
    )

    assert done.returncode == code, done.stderr
    assert (words in done.stderr, done.stderr.count("\n")) == (True, bool(words))
    assert (tmp_path / "o.csv").exists()


def test_plain_ascii_terminal(tmp_path: Path, embed: list[str]) -> None:
    """Letters that the terminal can't show are written as escapes."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    done = subprocess.run(
        [*embed, str(tmp_path / "本.csv")],
        capture_output=True,
        text=True,
        env=os.environ | plain,
    )

    assert done.returncode == 0, done.stderr
    assert "\\u672c.csv" in done.stdout
    assert (tmp_path / "本.csv").read_text("utf-8").splitlines()[1].startswith('"é.png"')


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_folders_that_are_not_flushed(
    folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Some file systems can't flush a folder; a disk that fails to still ends the job."""
    fsync = os.fsync

    def fail(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail)

    assert run(folder([b"a"]), tmp_path / "out", FakeRunner()).totals.embedded == 1


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_no_locks(
    folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """On a file system without locks, a job works without one."""

    def fail(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", fail)
    folder([b"a"])

    for out in ("out", "o.parquet"):
        assert run(tmp_path / "images", tmp_path / out, FakeRunner()).totals.embedded == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_kill_while_out_is_assembled(
    folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half-written file is gone after the next run, and an earlier OUT stays until then."""
    images, out = folder([b"a", b"b"]), tmp_path / "o.csv"
    run(images, out, FakeRunner())
    before = out.read_bytes()
    (images / "0002.png").write_bytes(b"c")
    child = os.fork()
    if child == 0:

        def die(file: IO[bytes], *_: object) -> None:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        with contextlib.suppress(BaseException):
            monkeypatch.setitem(FORMATS, ".csv", die)
            run(images, out, FakeRunner())
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert out.read_bytes() == before
    assert len(list(tmp_path.rglob("*.partial"))) == 1

    run(images, out, FakeRunner())

    assert not list(tmp_path.rglob("*.partial"))
    assert out.read_bytes() != before


WINDOWS = """if True:
    import os, sys
    for name in ("fcntl", "grp", "pwd", "resource", "termios"):
        sys.modules[name] = None  # importing it fails
    del os.O_NONBLOCK, os.O_CLOEXEC
    import pinhole.client
    from pinhole.cli import main
    sys.exit(main(sys.argv[1:]))
"""


def test_windows(scans: Path, small_bundle: Bundle) -> None:
    """Without the modules and flags that Windows lacks, and with files in a locale of its own."""
    local = ("--local", str(small_bundle.folder))
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for arguments in (
        ("embed", "images", "--out", "o", *local),
        ("embed", "images", "--out", "o", *local),  # It reads its _job.json.
        ("embed", "images", "--out", "o.parquet", *local),
        ("atlas", "o.parquet", "--out", "o.html"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", WINDOWS, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | environment,
        )
        assert done.returncode == 0, done.stderr
    assert "−" in Path("o.html").read_text("utf-8")
