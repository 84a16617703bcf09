"""Jobs: one row each, whatever happens on the way."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pinhole import Unavailable
from pinhole.jobs.errors import JobError
from pinhole.jobs.folder import locked
from pinhole.jobs.shards import shard_path

from .conftest import FakeRunner, run

Make = Callable[[Sequence[bytes]], Path]


def table_of(out: Path) -> pa.Table:
    """All shards, in order."""
    return pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("shard-*.parquet")))


def rows_of(out: Path) -> list[dict[str, object]]:
    """All rows, in order."""
    rows: list[dict[str, object]] = table_of(out).to_pylist()
    return rows


def test_every_path_is_one_row(
    folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are in order, each with hash and embedding, or with the reason why there is none."""
    monkeypatch.setattr("pinhole.jobs.sources.files.LARGEST_FILE", 100)
    contents = [bytes([65 + index]) * (index + 1) for index in range(50)]
    contents[7], contents[20], contents[33] = b"-broken", b"", b"x" * 101
    images = folder(contents)
    (images / "0011.png").unlink()
    (images / "0011.png").symlink_to("gone")

    done = run(images, tmp_path / "out", FakeRunner())

    rows = rows_of(tmp_path / "out")
    assert (done.totals.embedded, done.totals.failed, done.made.read) == (46, 4, 50)
    assert [row["path"] for row in rows] == [f"{index:04}.png" for index in range(50)]
    assert rows[5]["embedding"] == [6, 70]
    assert len(str(rows[5]["sha256"])) == 64
    assert {i: row["error"] for i, row in enumerate(rows) if row["error"]} == {
        7: "unreadable",
        11: "can't be read: No such file or directory",
        20: "unreadable",
        33: "101 bytes; the limit is 100",
    }
    assert rows[7]["embedding"] is None
    kind = table_of(tmp_path / "out").schema.field("embedding").type
    assert str(kind) == "fixed_size_list<element: float>[2]"


def test_shards_and_job_say_what_they_are(folder: Make, tmp_path: Path) -> None:
    """Model, precision, version, counts and source are in the metadata and in _job.json."""
    images = folder([b"a", b"-", b"c", b"d", b"e"])

    run(images, tmp_path / "out", FakeRunner(), rows=3)

    first, second = (pq.read_schema(shard_path(tmp_path / "out", shard)) for shard in (0, 1))
    said = {key.decode(): value.decode() for key, value in first.metadata.items()}
    assert said["pinhole.source"] == str(images)
    assert (said["pinhole.model_digest"], said["pinhole.precision"]) == ("digest", "fp32")
    assert (said["pinhole.rows"], said["pinhole.embedded"]) == ("3", "2")
    assert json.loads(said["pinhole.failures"]) == {"InvalidImage": 1}
    assert said["pinhole.tool_version"]
    assert second.metadata[b"pinhole.rows"] == b"2"
    job = json.loads((tmp_path / "out" / "_job.json").read_text())
    assert (job["state"], job["rows"], job["embedded"], job["failed"]) == ("done", 5, 4, 1)
    assert job["failures"] == {"InvalidImage": 1}
    assert job["source_digest"] == said["pinhole.source_digest"]
    assert job["last_run"]["images_per_s"] > 0


def test_job_goes_on_where_it_was(folder: Make, tmp_path: Path) -> None:
    """The service vanishes half-way: finished shards stay, only missing rows are made later."""
    images, out = folder([b"%d" % index for index in range(100)]), tmp_path / "out"
    with pytest.raises(Unavailable):
        run(images, out, FakeRunner(fail_after=50))
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert 1 <= len(finished) <= 5
    assert json.loads((out / "_job.json").read_text())["state"] == "running"

    runner = FakeRunner()
    done = run(images, out, runner)

    assert done.made.read == len(runner.embedded) <= 100 - 10 * len(finished)
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == finished
    assert [row["path"] for row in rows_of(out)] == [f"{index:04}.png" for index in range(100)]
    assert done.totals.embedded == 100


def test_finished_job_does_nothing(folder: Make, tmp_path: Path) -> None:
    """A second run changes no file and embeds nothing."""
    images, out = folder([b"a", b"b"]), tmp_path / "out"
    run(images, out, FakeRunner())
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    runner = FakeRunner()
    done = run(images, out, runner)

    assert (done.made.read, done.totals.embedded, runner.embedded) == (0, 2, [])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_job_killed_after_its_last_shard(folder: Make, tmp_path: Path) -> None:
    """All rows are there; the next run writes into _job.json that the job is done."""
    images, out = folder([b"a", b"b"]), tmp_path / "out"
    run(images, out, FakeRunner())
    job = json.loads((out / "_job.json").read_text())
    (out / "_job.json").write_text(json.dumps(job | {"state": "running"}))

    run(images, out, FakeRunner())

    assert json.loads((out / "_job.json").read_text())["state"] == "done"


def test_damaged_shard_is_made_again(folder: Make, tmp_path: Path) -> None:
    """A shard that a failing disk has damaged counts as missing."""
    images, out = folder([b"%d" % index for index in range(30)]), tmp_path / "out"
    run(images, out, FakeRunner())
    os.truncate(shard_path(out, 1), 50)

    done = run(images, out, FakeRunner())

    assert done.made.read == 10
    assert len(rows_of(out)) == 30


def test_identical_files_are_embedded_once(folder: Make, tmp_path: Path) -> None:
    """Every path has a row; equal contents are known across shards, chunks in flight, and runs."""
    contents = [b"%d" % (index % 7) for index in range(95)] + [b"new"] * 5
    images, out = folder(contents), tmp_path / "out"

    runner = FakeRunner()
    run(images, out, runner)
    shard_path(out, 9).unlink()
    again = FakeRunner()
    run(images, out, again)

    assert sorted(map(bytes, runner.embedded)) == sorted(set(contents))
    assert again.embedded == [b"new"]
    rows = rows_of(out)
    assert len(rows) == 100
    assert [row["embedding"][1] for row in rows] == [content[0] for content in contents]  # type: ignore[index]


def test_only_failed_rows_are_tried_again(folder: Make, tmp_path: Path) -> None:
    """No good row is embedded again, nor its shard rewritten; _job.json has the new counts."""
    images, out = (
        folder([b"-" if index in (3, 25) else b"x%d" % index for index in range(40)]),
        tmp_path / "out",
    )
    assert run(images, out, FakeRunner()).totals.failed == 2
    untouched = shard_path(out, 1).stat().st_mtime_ns
    assert run(images, out, FakeRunner()).made.read == 0

    runner = FakeRunner(refused=b"?")
    done = run(images, out, runner, retry=True)

    assert (done.made.read, done.totals.embedded, done.totals.failed) == (2, 40, 0)
    assert runner.embedded == [b"-"]
    rows = rows_of(out)
    assert rows[3]["embedding"] == rows[25]["embedding"] == [1, ord("-")]
    assert shard_path(out, 1).stat().st_mtime_ns == untouched
    assert json.loads((out / "_job.json").read_text())["failures"] == {}


@pytest.mark.parametrize("out", ["out", "out.parquet", "out.csv"])
@pytest.mark.parametrize("change", ["model", "score"])
def test_results_of_other_jobs_are_refused(
    folder: Make, tmp_path: Path, out: str, change: str
) -> None:
    """Rows of another model or form are left untouched; with overwrite they are replaced."""
    images = folder([b"a", b"b", b"c"])
    run(images, tmp_path / out, FakeRunner())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    digest = "other" if change == "model" else "digest"
    words = {"model": "another model", "score": "--score"}[change]

    def again(**options: bool) -> FakeRunner:
        runner = FakeRunner(digest, score=change == "score")
        run(images, tmp_path / out, runner, score=change == "score", **options)
        return runner

    with pytest.raises(JobError, match=f"{out} holds another job: .*{words}"):
        again()

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert sorted(map(bytes, again(overwrite=True).embedded)) == [b"a", b"b", b"c"]


def test_foreign_shard_is_refused(folder: Make, tmp_path: Path) -> None:
    """A shard copied in from another job is recognised by its metadata."""
    images = folder([b"a", b"b"])
    run(images, tmp_path / "one", FakeRunner("one"))
    run(images, tmp_path / "two", FakeRunner("two"))
    shard_path(tmp_path / "one", 0).rename(shard_path(tmp_path / "two", 0))

    with pytest.raises(JobError, match="another job's: its model_digest differs"):
        run(images, tmp_path / "two", FakeRunner("two"))


def test_two_jobs_on_one_folder(folder: Make, tmp_path: Path) -> None:
    """The second job is refused; when the first has ended, however it ended, the folder is free."""
    images, out = folder([b"a"]), tmp_path / "out"
    with locked(out), pytest.raises(JobError, match="another job is at work"):
        run(images, out, FakeRunner())

    assert run(images, out, FakeRunner()).totals.embedded == 1


def test_full_disk_ends_the_job_and_loses_nothing(folder: Make, tmp_path: Path) -> None:
    """No shard is cut short; once there is room, the job goes on."""
    images, out = folder([b"%d" % index for index in range(30)]), tmp_path / "out"
    run(images, out, FakeRunner())
    shard_path(out, 2).unlink()
    program = f"""
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).parents[3])!r})
        from pathlib import Path
        from tests.clients.jobs.conftest import FakeRunner, run
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
        run({str(images)!r}, Path({str(out)!r}), FakeRunner())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )

    assert "shard-000002.parquet can't be written: File too large" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "_job.json",
        "shard-000000.parquet",
        "shard-000001.parquet",
    ]
    assert run(images, out, FakeRunner()).totals.embedded == 30


def test_what_a_killed_process_left_is_cleared(folder: Make, tmp_path: Path) -> None:
    """Half-written shards have a temporary name, and are deleted by the next run."""
    images, out = folder([b"a"]), tmp_path / "out"
    run(images, out, FakeRunner())
    (out / f".shard-000007.parquet.{uuid4().hex}.partial").write_bytes(b"half")

    run(images, out, FakeRunner())

    assert not list(out.glob(".*partial"))


def test_other_peoples_partial_files_are_left(folder: Make, tmp_path: Path) -> None:
    """A folder that isn't a job's is refused before anything in it is touched."""
    images, out = folder([b"a"]), tmp_path / "downloads"
    out.mkdir()
    (out / ".film.mkv.partial").write_bytes(b"half a film")

    with pytest.raises(JobError, match="holds other files"):
        run(images, out, FakeRunner())

    assert (out / ".film.mkv.partial").read_bytes() == b"half a film"


def test_missing_shard_is_no_success(
    folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that is missing at the end, as when OUT is no shared disk, is an error."""
    images, out = folder([b"a", b"b"]), tmp_path / "out"
    monkeypatch.setattr("pinhole.jobs.making.write_shard", lambda *arguments: None)

    with pytest.raises(JobError, match="2 of 2 shards are missing"):
        run(images, out, FakeRunner(), rows=1)


def test_odd_name_of_the_source_itself(folder: Make, tmp_path: Path) -> None:
    """A folder's name that isn't UTF-8 is written into the shards with escapes."""
    images = folder([b"a"]).rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    out = tmp_path / "out"

    run(images, out, FakeRunner())

    metadata = pq.read_metadata(shard_path(out, 0)).metadata
    assert metadata[b"pinhole.source"].endswith(rb"/caf\xe9")


def test_odd_names_are_rows(folder: Make, tmp_path: Path) -> None:
    """Newlines, bytes that aren't UTF-8, folders called x.png, dangling links, pipes."""
    images, out = folder([]), tmp_path / "out"
    (images / os.fsdecode(b"caf\xe9.png")).write_bytes(b"a")
    (images / "new\nline.png").write_bytes(b"bb")
    (images / "folder.png").mkdir()
    (images / "folder.png" / "in.png").write_bytes(b"ccc")
    (images / "gone.png").symlink_to(tmp_path / "nowhere")
    (images / "loop.png").symlink_to(images / "loop.png")
    (images / "memory.png").symlink_to("/proc/self/mem")  # unreadable even for root
    os.mkfifo(images / "pipe.png")

    run(images, out, FakeRunner())

    rows = {row["path"]: row["error"] or row["embedding"] for row in rows_of(out)}
    assert rows == {
        "caf\\xe9.png": [1, ord("a")],
        "folder.png": "can't be read: Is a directory",
        "folder.png/in.png": [3, ord("c")],
        "gone.png": "can't be read: No such file or directory",
        "loop.png": "can't be read: Too many levels of symbolic links",
        "memory.png": "can't be read: Input/output error",
        "new\nline.png": [2, ord("b")],
        "pipe.png": "can't be read: Not a file",
    }


def test_files_that_change_meanwhile(folder: Make, tmp_path: Path) -> None:
    """A row's sha256 and embedding are of the same content, even if the file has changed since."""
    images, out = folder([b"a", b"bb", b"ccc"]), tmp_path / "out"

    class Meddling(FakeRunner):
        threads, chunk_images = 1, 1

        def prepare(self, content: object) -> object:  # type: ignore[override]
            (images / "0001.png").unlink(missing_ok=True)
            (images / "0002.png").write_bytes(b"grown")
            return content

    run(images, out, Meddling(), readers=1)

    first, second, third = rows_of(out)
    assert first["embedding"] == [1, ord("a")]
    assert second["error"] == "can't be read: No such file or directory"
    assert third["embedding"] == [5, ord("g")]


def test_scores_are_a_column(folder: Make, tmp_path: Path) -> None:
    """Each embedded image has an mse; a failed image has none."""
    run(folder([b"four", b"-"]), tmp_path / "out", FakeRunner(score=True), score=True)

    table = table_of(tmp_path / "out")
    assert table.schema.names[-3:] == ["mse", "percentile", "outlier"]
    assert table["mse"].to_pylist() == [0.5, None]


def test_arrays_are_embedded_as_they_are(tmp_path: Path) -> None:
    """Arrays aren't turned into files; sha256 is that of the pixels."""
    np.save(tmp_path / "a.npy", np.arange(25 * 4, dtype=np.uint8).reshape(25, 2, 2))

    done = run(tmp_path / "a.npy", tmp_path / "out", FakeRunner())

    rows = rows_of(tmp_path / "out")
    assert done.totals.embedded == 25
    assert [row["path"] for row in rows] == [str(number) for number in range(25)]
    assert rows[24]["embedding"] == [1, 99]
