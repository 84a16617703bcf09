"""Interrupted jobs, and places that lack what a job would use: it goes on, or says why not."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pinhole.jobs.folder import former_shards
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle

from .conftest import FakeRunner, run

Make = Callable[[Sequence[bytes]], Path]
PINHOLE = [sys.executable, "-m", "pinhole"]


class Stalling(BaseHTTPRequestHandler):
    """Embeds the files of one request, and keeps all further requests waiting."""

    protocol_version = "HTTP/1.1"
    requests: list[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        many = self.headers["Content-Type"] == "application/json"
        count = len(json.loads(body)["images"]) if many else 1
        if many:
            self.requests.append(count)
            if len(self.requests) > 1:
                time.sleep(60)
        rows = [[0, 1]] * count
        answer = {"embeddings": rows, "errors": []} if many else {"embedding": rows[0]}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Model-Digest", "digest")
        self.send_header("X-Precision", "fp32")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stalling() -> Iterator[str]:
    """The URL of a service that stalls."""
    Stalling.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


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


def test_hang_up_under_nohup(folder: Make, tmp_path: Path, stalling: str) -> None:
    """A signal that is ignored stays ignored."""
    images, out = folder([b"%03d" % index for index in range(300)]), tmp_path / "out"
    command = ["nohup", *PINHOLE, "embed", str(images), "--out", str(out), "--url", stalling]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        while len(Stalling.requests) < 2:
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
            time.sleep(0.01)
        time.sleep(0.2)

        code, said, seconds = stopped(job, signal.SIGINT)

    assert (code, said[0]) == (130, "pinhole: stopping")
    assert seconds < 5


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
