"""A source that has changed since the last run: what is known is taken over, the rest embedded."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pinhole import Unavailable
from pinhole.cli import main
from pinhole.jobs.earlier import reused
from pinhole.jobs.shards import Identity, shard_path
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle

from .conftest import FakeRunner, run

Make = Callable[[Sequence[bytes]], Path]
OUTS = ["out", "out.parquet", "out.csv", "out.npy"]


def numbered(count: int) -> list[bytes]:
    """Different contents."""
    return [b"%04d" % index for index in range(count)]


def rows_in(out: Path) -> object:
    """A result's rows, whatever its format."""
    if out.suffix == ".npy":
        return np.nan_to_num(np.load(out), nan=-1).tolist()
    if out.suffix == ".csv":
        return pyarrow.csv.read_csv(out).to_pylist()
    table = (
        pq.read_table(out)
        if out.suffix
        else pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("shard-*.parquet")))
    )
    return table.to_pylist()


def embedded(images: Path, out: Path, rows: int = 10) -> list[bytes]:
    """Run a job, compare its result with a fresh run's; returns what was embedded."""
    runner, fresh = FakeRunner(), out.with_name(f"fresh-{uuid4().hex}{out.suffix}")
    run(images, out, runner, rows)
    run(images, fresh, FakeRunner(), rows)
    assert rows_in(out) == rows_in(fresh)
    return sorted(map(bytes, runner.embedded))


@pytest.mark.parametrize("name", OUTS)
def test_only_what_is_new_is_embedded(folder: Make, tmp_path: Path, name: str) -> None:
    """Files before, among and after the others, replaced, deleted: the result is a fresh run's."""
    images, out = folder(numbered(50)), tmp_path / name
    assert embedded(images, out) == numbered(50)

    for new in ("!first", "0007a", "9999"):
        (images / f"{new}.png").write_bytes(new.encode())
    assert embedded(images, out) == [b"!first", b"0007a", b"9999"]

    (images / "0030.png").write_bytes(b"replaced")
    (images / "0031.png").unlink()
    assert embedded(images, out) == [b"replaced"]

    assert embedded(images, out) == []
    assert embedded(images, out, rows=7) == []


@pytest.mark.parametrize("name", OUTS)
def test_nightly_job(folder: Make, tmp_path: Path, name: str) -> None:
    """A broken image has its row until it goes, isn't tried every night, and locks nobody out."""
    images, out = folder(numbered(3)), tmp_path / name
    assert len(embedded(images, out)) == 3
    (images / "b.png").write_bytes(b"-broken")
    assert embedded(images, out) == [b"-broken"]
    (images / "c.png").write_bytes(b"day 4")
    assert embedded(images, out) == [b"day 4"]
    (images / "b.png").unlink()
    assert embedded(images, out) == []

    assert run(images, out, FakeRunner()).totals.failed == 0
    hidden = tmp_path / f".{name}.job"
    assert hidden.exists() == (name in ("out.csv", "out.npy"))
    assert not [path for path in tmp_path.rglob(".shard-*") if path.is_file()]


def test_known_files_are_not_read(
    folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names, sizes and times are enough; a touched file is read, and isn't embedded."""
    images, out = folder(numbered(30)), tmp_path / "out"
    run(images, out, FakeRunner())
    (images / "new.png").write_bytes(b"new")
    os.utime(images / "0003.png", (1, 1))

    runner = FakeRunner()
    done = run(images, out, runner)

    assert (done.made.read, done.made.embedded, runner.embedded) == (2, 1, [b"new"])
    last = json.loads((out / "_job.json").read_text())["last_run"]
    assert (last["rows"], last["embedded"]) == (2, 1)


def test_a_source_has_two_names(
    folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was begun on Ray, where names are absolute, goes on elsewhere."""
    images, out = folder(numbered(5)), tmp_path / "out"
    run(images, out, FakeRunner())
    (images / "new.png").write_bytes(b"new")
    monkeypatch.chdir(tmp_path)

    assert run("images", out, FakeRunner()).made.read == 1


def test_refused_files_are_known_too(folder: Make, tmp_path: Path) -> None:
    """A file that couldn't be read is tried again; one that the model refused is not."""
    images, out = folder([b"a", b"-"]), tmp_path / "out"
    (images / "gone.png").symlink_to(tmp_path / "later.png")
    run(images, out, FakeRunner())
    (tmp_path / "later.png").write_bytes(b"later")

    runner = FakeRunner()
    done = run(images, out, runner)

    assert runner.embedded == [b"later"]
    assert done.totals.failures == {"InvalidImage": 1}


def test_going_on_reads_no_names(
    folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of finished shards of the same list, only contents matter: a million names take a minute."""
    images, out = folder([*numbered(20), b"0003"]), tmp_path / "out"
    run(images, out, FakeRunner())
    shard_path(out, 2).unlink()
    keyed = list[str]()
    monkeypatch.setattr(
        "pinhole.jobs.known.input_key", lambda name, stamp: keyed.append(name) or name.encode()
    )

    runner = FakeRunner()
    run(images, out, runner)

    assert (keyed, runner.embedded) == ([], [])


def test_arrays_are_known_by_their_pixels(tmp_path: Path) -> None:
    """Inputs without a time of change are read, and known by their sha256."""
    pixels = np.arange(30 * 4, dtype=np.uint8).reshape(30, 2, 2)
    np.save(tmp_path / "a.npy", pixels[:25])
    run(tmp_path / "a.npy", tmp_path / "out", FakeRunner())
    np.save(tmp_path / "a.npy", np.roll(pixels, 1, axis=0))

    runner = FakeRunner()
    done = run(tmp_path / "a.npy", tmp_path / "out", runner)

    assert len(runner.embedded) == 5 == done.made.embedded
    assert len(rows_in(tmp_path / "out")) == 30  # type: ignore[arg-type]


@pytest.mark.parametrize("out", OUTS)
def test_rows_of_another_result(folder: Make, tmp_path: Path, out: str) -> None:
    """--reuse takes rows over, of another source too; stamps of another source say nothing."""
    images = folder(numbered(20))
    run(images, tmp_path / out, FakeRunner())
    others = tmp_path / "others"
    others.mkdir()
    for index, content in enumerate([b"0001", b"other"]):
        (others / f"{index:04}.png").write_bytes(content)
        status = (images / f"{index:04}.png").stat()
        os.utime(others / f"{index:04}.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    runner = FakeRunner()
    of = Identity("", 0, "", runner.model, score=False, shard_rows=1)

    done = run(others, tmp_path / "new", runner, reuse=reused(str(tmp_path / out), of))

    assert (runner.embedded, done.made.read) == ([b"other"], 2)


def test_reuse_names_a_result(
    folder: Make, tmp_path: Path, small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """What isn't a result, or is another model's, is refused; rows that fit are taken over."""
    images = folder([write_png(np.zeros((1, 28, 28), np.uint8))])
    command = ["embed", str(images), "--local", str(small_bundle.folder), "--out"]
    run(images, tmp_path / "fake.parquet", FakeRunner())
    (tmp_path / "empty").mkdir()

    for old, words in (
        ("nothing", "is no job's result"),
        ("empty", "is no job's result"),
        ("images/0000.png", "is no job's result"),
        ("fake.parquet", "can't be taken over: another model"),
    ):
        assert main([*command, str(tmp_path / "o"), "--reuse", str(tmp_path / old)]) == 2
        said = capsys.readouterr().err
        assert (words in said, said.count("\n")) == (True, 1)
    assert main([*command, str(tmp_path / "old.parquet")]) == 0
    assert main([*command, str(tmp_path / "o"), "--reuse", str(tmp_path / "old.parquet")]) == 0
    assert json.loads((tmp_path / "o/_job.json").read_text())["last_run"]["rows"] == 0


def test_dry_run_counts_what_is_new(
    folder: Make, tmp_path: Path, small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """By names and times, without reading a file; nothing is written."""
    images = folder([b"broken", b"too"])
    out = tmp_path / "o.parquet"
    command = ["embed", str(images), "--out", str(out), "--local", str(small_bundle.folder)]
    assert main(command) == 1
    before = out.read_bytes()
    (images / "new.png").write_bytes(b"broken as well")
    capsys.readouterr()

    for options, words in (([], "1 would be"), (["--retry-failed"], "3 would be")):
        assert main([*command, "--dry-run", *options]) == 0
        assert words in capsys.readouterr().out

    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"images", "o.parquet"}


@pytest.mark.parametrize("name", OUTS)
def test_interruptions_lose_no_row(folder: Make, tmp_path: Path, name: str) -> None:
    """Neither rows of an unfinished shard, nor those of shards that were put aside."""
    images, out = folder(numbered(40)), tmp_path / name
    first = FakeRunner(fail_after=25)
    with pytest.raises(Unavailable):
        run(images, out, first, rows=30)
    for index in range(100, 140):
        (images / f"!{index}.png").write_bytes(b"%d" % index)
    second = FakeRunner(fail_after=25)
    with pytest.raises(Unavailable):
        run(images, out, second, rows=30)

    last = embedded(images, out, rows=30)

    # What was under way when the runner failed is lost: two threads' chunks of four.
    again = len(first.embedded) + len(second.embedded) + len(last) - 80
    assert again <= 2 * 2 * 4 * 2
    assert set(first.embedded) | set(second.embedded) | set(last) == {
        path.read_bytes() for path in images.iterdir()
    }


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_kill_while_shards_are_made_anew(folder: Make, tmp_path: Path) -> None:
    """The rows that were put aside are still known afterwards."""
    images, out = folder(numbered(40)), tmp_path / "out"
    run(images, out, FakeRunner())
    (images / "!new.png").write_bytes(b"new")

    class Killed(FakeRunner):
        def confirm(self) -> None:
            if shard_path(out, 1).exists():
                os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            run(images, out, Killed())
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(list(out.glob("shard-*"))) == 2

    assert embedded(images, out) == []


@pytest.mark.parametrize("changed", ["lists", "texts", "threshold"])
def test_rows_that_another_program_wrote_are_made_anew(
    folder: Make, tmp_path: Path, changed: str
) -> None:
    """Their columns have other types, or their description can't be read; both are no traceback."""
    images, out = folder([*numbered(20), b"-"]), tmp_path / "out.parquet"
    run(images, out, FakeRunner())
    table = pq.read_table(out)
    types = {"lists": pa.list_(pa.float32()), "texts": pa.string()}
    if changed in types:
        rows = [str(row) if changed == "texts" else row for row in table["embedding"].to_pylist()]
        at = table.schema.get_field_index("embedding")
        table = table.set_column(at, "embedding", pa.array(rows, types[changed]))
    else:
        marks = {**table.schema.metadata, b"pinhole.outlier_percentile": b"many"}
        table = table.replace_schema_metadata(marks)
    pq.write_table(table, out)

    assert len(embedded(images, out)) == 21
