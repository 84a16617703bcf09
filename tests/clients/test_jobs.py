"""Jobs: listing, chunking and writing; the whole way runs in tests/e2e."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pinhole import BadRequest, Health, Unavailable, jobs
from pinhole.jobs import embed_files, list_images, split_chunks


class FakeClient:
    """Embeds a file as (its length, its first byte); refuses files that start with a dash."""

    def __init__(self, fail_after: int = 10**9) -> None:
        self.calls = 0
        self.fail_after = fail_after

    def health(self) -> Health:
        return Health("digest", "1.0", "fp32", embedding_width=2, latency_ms=1)

    def try_embed(self, images: Sequence[bytes]) -> list[NDArray[np.float32] | BadRequest]:
        self.calls += 1
        if self.calls > self.fail_after:
            raise Unavailable("gone")
        return [
            BadRequest("unreadable")
            if data[:1] in (b"-", b"")
            else np.array([len(data), data[0]], "f4")
            for data in images
        ]


def make_files(folder: Path, contents: Sequence[bytes]) -> list[Path]:
    """One .png for each content."""
    for index, content in enumerate(contents):
        (folder / f"{index:04}.png").write_bytes(content)
    return list_images(folder)


def test_only_images_are_listed_at_any_depth(tmp_path: Path) -> None:
    """Sorted, by suffix in any case; hidden files and folders are left out."""
    for name in ("b.PNG", "a/z.jpg", "notes.txt", ".hidden.png", ".cache/c.png", "a/y.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()

    names = [str(path.relative_to(tmp_path)) for path in list_images(tmp_path)]

    assert names == ["a/y.webp", "a/z.jpg", "b.PNG"]


def test_chunks_keep_both_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and bytes, whichever is reached first; order and completeness kept."""
    monkeypatch.setattr(jobs, "CHUNK_FILES", 3)
    monkeypatch.setattr(jobs, "CHUNK_BYTES", 10)
    paths = make_files(tmp_path, [b"1", b"1", b"1", b"1", b"9" * 9, b"9" * 2, b"9" * 50])

    chunks = list(split_chunks(paths))

    assert [len(chunk) for chunk in chunks] == [3, 2, 1, 1]
    assert [path for chunk in chunks for path in chunk] == paths


def test_every_path_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, with hash and embedding, or with the reason there is none."""
    monkeypatch.setattr(jobs, "CHUNK_FILES", 4)
    monkeypatch.setattr(jobs, "LARGEST_FILE", 100)
    contents = [bytes([65 + index]) * (index + 1) for index in range(50)]
    contents[7], contents[20], contents[33] = b"-broken", b"", b"x" * 101
    folder = tmp_path / "images"
    folder.mkdir()
    paths = make_files(folder, contents)
    paths[11].unlink()  # gone between listing and reading
    seen: list[int] = []

    totals = embed_files(FakeClient(), folder, paths, tmp_path / "out.parquet", seen.append)

    table = pq.read_table(tmp_path / "out.parquet")
    rows = table.to_pylist()
    assert (totals.embedded, totals.failed, sum(seen)) == (46, 4, 50)
    assert [row["path"] for row in rows] == [f"{index:04}.png" for index in range(50)]
    assert rows[5]["embedding"] == [6, 70]
    assert len(rows[5]["sha256"]) == 64
    assert {i: row["error"] for i, row in enumerate(rows) if row["error"]} == {
        7: "unreadable",
        11: "can't be read: No such file or directory",
        20: "unreadable",
        33: "101 bytes; the limit is 100",
    }
    assert rows[7]["embedding"] is None
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[2]"


def test_files_without_room_go_again_alone(tmp_path: Path) -> None:
    """A request has a budget of pixels; what it had none left for is no failure."""

    class Tight(FakeClient):
        def try_embed(self, images: Sequence[bytes]) -> list[NDArray[np.float32] | BadRequest]:
            full = BadRequest("pixels exceed the limit", 400, "PayloadTooLarge")
            return [*super().try_embed(images[:2]), *[full for _ in images[2:]]]

    folder = tmp_path / "images"
    folder.mkdir()
    paths = make_files(folder, [b"a", b"bb", b"ccc", b"-", b"eeeee"])

    totals = embed_files(Tight(), folder, paths, tmp_path / "o.parquet", lambda count: None)

    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert (totals.embedded, totals.failed) == (4, 1)
    assert [row["embedding"] and row["embedding"][0] for row in rows] == [1, 2, 3, None, 5]
    assert rows[3]["error"] == "unreadable"


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    """A Latin-1 file name is a row like any other."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"a")

    embed_files(FakeClient(), folder, list_images(folder), tmp_path / "o.parquet", lambda n: None)

    assert pq.read_table(tmp_path / "o.parquet")["path"].to_pylist() == ["caf\\xe9.png"]


def test_interrupted_job_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service vanishes half-way: the former result stays, no partial one remains."""
    monkeypatch.setattr(jobs, "CHUNK_FILES", 2)
    folder = tmp_path / "images"
    folder.mkdir()
    paths = make_files(folder, [b"a"] * 40)
    out = tmp_path / "out.parquet"
    out.write_text("former")

    with pytest.raises(Unavailable):
        embed_files(FakeClient(fail_after=5), folder, paths, out, lambda count: None)

    assert out.read_text() == "former"
    assert {path.name for path in tmp_path.iterdir()} == {"images", "out.parquet"}
