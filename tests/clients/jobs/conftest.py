"""A fake runner whose answers depend on the image, a job in one call, and folders to work in."""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinhole import Unavailable
from pinhole.jobs import service
from pinhole.jobs.errors import Fault
from pinhole.jobs.job import Done, Job
from pinhole.jobs.making import InProcess
from pinhole.jobs.rows import Answer
from pinhole.jobs.runners import Model, Prepared, Runner
from pinhole.jobs.shards import Identity
from pinhole.jobs.sinks import parse_sink
from pinhole.jobs.sources import Content, Source, printable
from pinhole.jobs.sources.opening import open_source
from serve.bundle.images import write_png


class FakeRunner:
    """Embeds a file as (its length, its first byte); refuses files that start with a dash.

    Args:
        digest: of its model.
        fail_after: how many images it embeds before it fails.
        score: whether answers have an mse.
        refused: what files begin with that it refuses.
    """

    name, threads, chunk_images = "fake", 2, 4

    def __init__(
        self,
        digest: str = "digest",
        fail_after: int = 10**9,
        score: bool = False,
        refused: bytes = b"-",
    ) -> None:
        self.model = Model(digest, "fp32", 2)
        self.embedded: list[Prepared] = []
        self.stopped = False
        self._fail_after, self._score, self._lock = fail_after, score, threading.Lock()
        self._refused = refused

    def prepare(self, content: Prepared) -> Prepared | Fault:
        return Fault("InvalidImage", "unreadable") if len(content) == 0 else content

    def embed(self, images: Sequence[Prepared | Fault]) -> list[Answer | Fault]:
        with self._lock:
            if len(self.embedded) + len(images) > self._fail_after:
                raise Unavailable("gone")
            self.embedded += [image for image in images if not isinstance(image, Fault)]
        return [self._answer(image) for image in images if not isinstance(image, Fault)]

    def _answer(self, image: Prepared) -> Answer | Fault:
        if bytes(image[:1]) == self._refused:
            return Fault("InvalidImage", "unreadable")
        first = image[0] if isinstance(image, bytes) else image.max()
        embedding = np.array([len(image), first], np.float32)
        return Answer(embedding, len(image) / 8 if self._score else None)

    def confirm(self) -> None:
        pass

    def stop(self) -> None:
        self.stopped = True


def run(source: Path | str, out: Path, runner: Runner, rows: int = 10, **options: Any) -> Done:
    """Run a job with shards of ``rows`` inputs."""
    with closing(open_source(str(source))) as listed:
        return run_listed(listed, source, out, runner, rows, **options)


def run_listed(
    listed: Source,
    source: Path | str,
    out: Path,
    runner: Runner,
    rows: int,
    score: bool = False,
    readers: int = 4,
    **options: Any,
) -> Done:
    """Run a job on a source that has been listed."""
    name, model = printable(str(source)), runner.model
    identity = Identity(name, listed.count, listed.digest, model, score, rows)
    job = Job(parse_sink(str(out)), identity, **options)
    return job.run(InProcess(listed, runner, readers), lambda count: None)


def contents(source: Path | str, column: str | None = None) -> dict[str, Content]:
    """The contents of a source, by name."""
    with closing(open_source(str(source), column)) as listed:
        chunks = listed.chunks(range(listed.count), 3)
        pairs = [pair for chunk in chunks for pair in zip(chunk.names, chunk.load(), strict=True)]
        assert len(pairs) == listed.count
        return dict(pairs)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Sequence[bytes]], Path]:
    """Makes a folder with one .png for each content, called 0000.png and so on."""

    def make(contents: Sequence[bytes]) -> Path:
        images = tmp_path / "images"
        images.mkdir()
        for index, content in enumerate(contents):
            (images / f"{index:04}.png").write_bytes(content)
        return images

    return make


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scans(here: Path) -> Path:
    """The working directory, with images.npy, images/0.png and images/1.png in it."""
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 1, 28, 28)
    np.save("images.npy", pixels)
    Path("images").mkdir()
    for index in range(2):
        Path(f"images/{index}.png").write_bytes(write_png(pixels[index]))
    return here


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that the runner has shown to the user; its pauses are short here."""
    monkeypatch.setattr(service, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(service, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(service, "QUIET_S", 0.1)
    return []
