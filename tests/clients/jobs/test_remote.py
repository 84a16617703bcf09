"""Sources at URLs, and back ends that fail: with errors of their own, for a while or for good."""

import http.server
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pinhole.cli import main
from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.sources import remote
from pinhole.jobs.sources.opening import open_source
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle

from .conftest import FakeRunner, contents, run
from .test_job import rows_of
from .test_sources import NAMES, make_tar


class BackEndError(Exception):
    """As botocore's and aiohttp's errors, no OSError."""


class Faulty(MemoryFileSystem):
    """Raises what ``trouble`` has for a path, as often as it says; "" is listing."""

    protocol = "faulty"
    store: dict[str, Any] = {}  # noqa: RUF012 - as in MemoryFileSystem
    pseudo_dirs = [""]  # noqa: RUF012 - as in MemoryFileSystem
    trouble: dict[str, list[Exception]] = {}  # noqa: RUF012 - a test fills it

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.replace("faulty://", "memory://"))
        return stripped

    def fail(self, path: str) -> None:
        if errors := self.trouble.get(path):
            raise errors.pop()

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.fail("")
        return super().find(path, *arguments, **options)

    def info(self, path: str, **options: Any) -> Any:
        self.fail(f"info {path}")
        return super().info(path, **options)

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.fail(f"cat_file {path}")
        return super().cat_file(path, *arguments, **options)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "rb":
            self.fail(path)
        return super()._open(path, mode, **options)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """The file system, with scans/a.png and scans/b.png in it."""
    monkeypatch.setattr(remote, "PAUSES_S", (0.01, 0.01))
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    system = fsspec.filesystem("faulty")
    for name in ("a", "b"):
        system.pipe(f"/scans/{name}.png", name.encode())
    yield system
    Faulty.trouble.clear()
    system.rm("/scans", recursive=True)


@pytest.mark.parametrize("url", ["faulty://scans", "faulty://scans/*.png"])
def test_source_that_cannot_be_listed(
    faulty: Faulty,
    tmp_path: Path,
    small_bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    url: str,
) -> None:
    """Missing credentials, for example, are one line; no OUT is begun."""
    Faulty.trouble[""] = [BackEndError("Unable to locate credentials\nmore")] * 9
    out = tmp_path / "out"

    code = main(["embed", url, "--out", str(out), "--local", str(small_bundle.folder)])

    said = capsys.readouterr().err
    assert (code, said.count("\n"), out.exists()) == (2, 1, False)
    assert "can't be listed: Unable to locate credentials" in said


@pytest.mark.parametrize("error", [BackEndError("of user:secret@host"), ConnectionResetError()])
def test_file_that_cannot_be_read(faulty: Faulty, tmp_path: Path, error: Exception) -> None:
    """It is tried three times; then it is a row with an error, which shows no password."""
    Faulty.trouble = {"/scans/a.png": [error] * 2, "/scans/b.png": [error] * 3}

    run("faulty://scans", tmp_path / "out", FakeRunner())

    assert [row["error"] for row in rows_of(tmp_path / "out")] == [
        None,
        f"can't be read: {type(error).__name__}",
    ]


@pytest.mark.parametrize("name", ["all.zip", "all.parquet", "all.tar", "all.npy"])
@pytest.mark.parametrize("call", ["info", "cat_file"])
def test_file_whose_server_goes_away_ends_the_job(
    faulty: Faulty, tmp_path: Path, name: str, call: str
) -> None:
    """Its images aren't damaged; a server that is away for a moment is waited for."""
    path, file = f"/scans/{name}", io.BytesIO()
    if name == "all.zip":
        with zipfile.ZipFile(file, "w") as archive:
            for member in NAMES:
                archive.writestr(member, bytes(1_000))
    elif name == "all.parquet":
        pq.write_table(pa.table({"image": [bytes(1_000)] * 3}), file, row_group_size=1)
    elif name == "all.npy":
        np.save(file, np.zeros((3, 9, 9), np.uint8))
    else:
        file.write(make_tar(tmp_path / name, "w").read_bytes())
    faulty.pipe(path, file.getvalue())
    gone = FileNotFoundError(f"faulty://user:secret@host{path}")
    gone.__cause__ = ConnectionRefusedError(0, "refused")

    for errors, ends in (([BackEndError("away")] * 2, False), ([gone] * 3, True)):
        with closing(open_source(f"faulty:/{path}")) as source:
            Faulty.trouble[f"{call} {path}"] = list(errors)
            if ends:
                with pytest.raises(JobError, match=r"can't be read") as raised:
                    [list(chunk.load()) for chunk in source.chunks(range(source.count), 1)]
                assert "damaged" not in str(raised.value)
                assert "secret" not in str(raised.value)
            else:
                contents = [*map(list, (c.load() for c in source.chunks(range(source.count), 1)))]
                assert not any(isinstance(each, Fault) for (each,) in contents)
        Faulty.trouble.clear()


def test_files_at_urls_have_stamps(faulty: Faulty, tmp_path: Path) -> None:
    """Known files aren't fetched again."""
    run("faulty://scans", tmp_path / "out", FakeRunner())
    faulty.pipe("/scans/c.png", b"c")

    runner = FakeRunner()
    done = run("faulty://scans", tmp_path / "out", runner)

    assert (runner.embedded, done.made.read) == ([b"c"], 1)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the working directory, and sends no parts of files."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server of the temporary folder."""
    handler = partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_results_show_no_password(tmp_path: Path, web: str, small_bundle: Bundle) -> None:
    """A result is kept and shared: it names the URL without who has fetched it."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/a.png").write_bytes(write_png(np.ones((1, 28, 28), np.uint8)))
    out = tmp_path / "out.parquet"
    url = web.replace("://", "://user:s3cret@") + "/scans/"

    assert main(["embed", url, "--out", str(out), "--local", str(small_bundle.folder)]) == 0

    assert pq.read_schema(out).metadata[b"pinhole.source"].decode() == f"{web}/scans/"


def test_urls_of_one_file(tmp_path: Path, web: str) -> None:
    """A URL may name one file: its name is that of the file, once; a web page is a folder."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"image")
    make_tar(tmp_path / "in" / "b.tar", "w")
    fsspec.filesystem("memory").pipe("/one/a.png", b"image")
    name = f"{tmp_path}/in/a.png"

    assert contents(f"file://{name}") == {name: b"image"}
    assert contents("memory://one/a.png") == {"/one/a.png": b"image"}
    assert contents(f"{web}/in/a.png") == {f"{web}/in/a.png": b"image"}
    assert contents(f"{web}/in/a.png?size=9") == {f"{web}/in/a.png?size=9": b"image"}
    assert list(contents(f"{web}/in/b.tar")) == [f"./{name}" for name in NAMES]
    assert list(contents(f"{web}/in")) == ["a.png", *(f"b.tar/./{name}" for name in NAMES)]


def test_urls_that_lead_nowhere(web: str) -> None:
    """What isn't there and a server that doesn't answer are told apart, in one line."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    with pytest.raises(JobError, match=r"/gone.png is not a folder, file, pattern or URL"):
        open_source(f"{web}/gone.png")
    with pytest.raises(JobError, match="can't be opened: Cannot connect"):
        open_source(f"http://127.0.0.1:{port}/a.png")


def test_urls(tmp_path: Path) -> None:
    """A folder and a pattern in any fsspec file system are sources, and so are lists of URLs."""
    memory = fsspec.filesystem("memory")
    for name in NAMES:
        memory.pipe(f"/scans/{name}", name.encode())
    (tmp_path / "list.txt").write_text("memory://scans/b.PNG\nmemory://scans/gone.png\n")

    assert contents("memory://scans") == {name: name.encode() for name in NAMES}
    assert list(contents("memory://scans/a/*.jpg").values()) == [b"a/z.jpg"]
    found = contents(tmp_path / "list.txt")
    assert found["memory://scans/b.PNG"] == b"b.PNG"
    assert isinstance(found["memory://scans/gone.png"], Fault)
    with pytest.raises(JobError, match="can't be opened"):
        open_source("nowhere://x")
