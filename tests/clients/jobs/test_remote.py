"""Sources at URLs whose back ends fail: with errors of their own, for a while or for good."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pinhole.cli import main
from pinhole.jobs.sources import remote
from serve.bundle.manifest import Bundle

from .conftest import FakeRunner, run
from .test_job import rows_of


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


def test_files_at_urls_have_stamps(faulty: Faulty, tmp_path: Path) -> None:
    """Known files aren't fetched again."""
    run("faulty://scans", tmp_path / "out", FakeRunner())
    faulty.pipe("/scans/c.png", b"c")

    runner = FakeRunner()
    done = run("faulty://scans", tmp_path / "out", runner)

    assert (runner.embedded, done.made.read) == ([b"c"], 1)
