"""OUT: nothing that isn't a job's own is written over, under whatever name."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pinhole.cli import main
from pinhole.jobs.shards import shard_path
from serve.bundle.manifest import Bundle

from .conftest import FakeRunner, run

Make = Callable[[Sequence[bytes]], Path]
Said = pytest.CaptureFixture[str]


def refusal(said: Said, *arguments: str) -> str:
    """The one line by which a job is refused, before its bundle is missed."""
    assert main(["embed", *arguments, "--local", "no-such-bundle"]) == 2
    line = said.readouterr().err
    assert line.count("\n") == 1
    return line


def snapshot(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder, with its content."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_source_is_never_out(
    scans: Path, capsys: Said, link: Callable[[str, str], None] | None, overwrite: list[str]
) -> None:
    """Neither by its own name nor by a link to it, not even with --overwrite."""
    if link:
        link("images.npy", "out.npy")
    before = snapshot(scans)

    line = refusal(capsys, "images.npy", "--out", "out.npy" if link else "images.npy", *overwrite)

    assert "is SOURCE, or one of its files" in line
    assert snapshot(scans) == before


@pytest.mark.parametrize(
    "source",
    ["list.txt", "images/*", "file://{here}/images/rows.csv", "local://{here}/images/rows.csv"],
)
def test_out_among_the_inputs_is_refused(scans: Path, capsys: Said, source: str) -> None:
    """A list or a pattern may name OUT too, and a URL may name a file of this host."""
    Path("images/rows.csv").write_text("mine")
    Path("list.txt").write_text("images/0.png\nimages/rows.csv\nhttp://localhost/x.png\n")

    line = refusal(
        capsys, source.format(here=scans), "--out", "./images/../images/rows.csv", "--overwrite"
    )

    assert "is SOURCE, or one of its files" in line
    assert Path("images/rows.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("source", "out"),
    [
        *(("images/**", "images/rows.csv"), ("images/**", "images/rows"), ("*", "o.parquet")),
        *(("{scans}/i*/*", "images/o.csv"), ("{scans}/**", "new/folder")),
    ],
)
def test_pattern_that_would_match_out_is_refused(
    scans: Path, capsys: Said, source: str, out: str
) -> None:
    """At the first run already: the next would take its own result for an input."""
    before = snapshot(scans)

    assert "one of its files" in refusal(capsys, source.format(scans=scans), "--out", out)

    assert snapshot(scans) == before


def test_pattern_that_leads_in_circles(scans: Path, small_bundle: Bundle) -> None:
    """Two links upwards make endless paths, of which an existing OUT may be none."""
    for name in ("up", "up2"):
        Path("images", name).symlink_to(scans)
    Path("o.csv").touch()

    assert main(["embed", "images/**", "--out", "o.csv", "--local", str(small_bundle.folder)]) == 0


def test_result_within_the_source_is_no_input(scans: Path, small_bundle: Bundle) -> None:
    """Not even if --column names a column that it has."""
    pq.write_table(pa.table({"path": ["0.png"]}), "images/paths.parquet")
    command = ["--out", "images/o", "--column", "path", "--local", str(small_bundle.folder)]

    assert main(["embed", "images", *command]) == main(["embed", "images", *command]) == 0

    assert json.loads(Path("images/o/_job.json").read_text())["rows"] == 3


def test_link_to_itself_is_one_line(scans: Path, capsys: Said, small_bundle: Bundle) -> None:
    """There is no file that it names."""
    Path("o").symlink_to("o")

    assert main(["embed", "images", "--out", "o", "--local", str(small_bundle.folder)]) == 2

    said = capsys.readouterr().err
    assert (said.count("\n"), "Too many levels" in said or "File exists" in said) == (1, True)


@pytest.mark.parametrize("source", ["o/shard-000000.parquet", "o/images", "link", "o/images/*"])
def test_out_that_holds_the_inputs_is_refused(scans: Path, capsys: Said, source: str) -> None:
    """A job's files in it might replace them, or --overwrite remove them."""
    Path("o").mkdir()
    Path("images").rename("o/images")
    pq.write_table(pa.table({"image": [b"x"]}), "o/shard-000000.parquet")
    Path("link").symlink_to("o/shard-000000.parquet")
    before = snapshot(scans)

    assert "holds SOURCE" in refusal(capsys, source, "--out", "o", "--overwrite")

    assert snapshot(scans) == before


@pytest.mark.parametrize("root", ["", "file://{}/", "local://{}/"])
def test_out_that_a_folder_holds_for_its_images_is_refused(
    scans: Path, capsys: Said, root: str
) -> None:
    """An archive, table or array in SOURCE is an input, if it holds images."""
    pq.write_table(pa.table({"image": [b"x"]}), "images/a.parquet")
    before = snapshot(scans)

    source = f"{root.format(scans)}images"
    line = refusal(capsys, source, "--out", "images/a.parquet", "--overwrite")

    assert "is SOURCE, or one of its files" in line
    assert snapshot(scans) == before


def test_out_within_the_source_is_fine(scans: Path, small_bundle: Bundle) -> None:
    """Results are no images, so that they may lie among the images, and be made again."""
    command = ["embed", "images", "--out", "images/rows.csv", "--local", str(small_bundle.folder)]

    assert main(command) == main(command) == 0

    assert {path.name for path in Path("images").glob("[!.]*")} == {"0.png", "1.png", "rows.csv"}


def table(**columns: list[object]) -> pa.Table:
    """A table of a user's own."""
    return pa.table(columns)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "notes.csv": lambda path: path.write_text("path,note\n1,mine\n"),
    "labels.csv": lambda path: path.write_text(
        '"path","sha256","embedding_0","embedding_1","error","label"\n'
    ),
    "mine.npy": lambda path: np.save(path, np.zeros((2, 2), np.float32)),
    "mine.parquet": lambda path: pq.write_table(table(path=["a"]), path),
    "labels.parquet": lambda path: pq.write_table(
        table(path=["a"], sha256=["b"], embedding=[1], error=["c"], label=["d"]).cast(
            pa.schema(
                [(name, pa.string()) for name in ("path", "sha256")]
                + [("embedding", pa.int64()), ("error", pa.string()), ("label", pa.string())],
                {"pinhole.model_digest": "x"},
            )
        ),
        path,
    ),
    "text.parquet": lambda path: path.write_text("not Parquet"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_are_kept(
    scans: Path, capsys: Said, small_bundle: Bundle, name: str
) -> None:
    """A file that no job has written, or that has got columns since, needs --overwrite."""
    FOREIGN[name](Path(name))
    before = snapshot(scans)

    line = refusal(capsys, "images", "--out", name)

    assert line == f"pinhole: {name} isn't an earlier result of a job; --overwrite replaces it\n"
    assert snapshot(scans) == before
    command = ["embed", "images", "--out", name, "--local", str(small_bundle.folder)]
    assert main([*command, "--overwrite"]) == 0
    assert Path(name).read_bytes() != before[scans / name]


def test_shard_is_no_result_of_its_own(scans: Path, capsys: Said, small_bundle: Bundle) -> None:
    """The folder that it belongs to would lose its rows."""
    assert main(["embed", "images", "--out", "o", "--local", str(small_bundle.folder)]) == 0

    line = refusal(capsys, "images", "--out", "o/shard-000000.parquet")

    assert "--overwrite replaces it" in line


@pytest.mark.parametrize("name", ["o.parquet", "o.csv"])
@pytest.mark.parametrize(
    "score", [[], ["--score"], ["--score", "--outlier-percentile", "99.9999995"]]
)
def test_own_result_is_replaced(
    scans: Path, small_bundle: Bundle, name: str, score: list[str]
) -> None:
    """The same command, or one on other images, needs no --overwrite; nor does an empty file."""
    Path(name).touch()
    command = ["--out", name, *score, "--local", str(small_bundle.folder)]
    assert main(["embed", "images", *command]) == 0
    Path("images/1.png").unlink()

    assert main(["embed", "images", *command]) == 0

    read = pq.read_table if name.endswith("parquet") else pyarrow.csv.read_csv
    assert read(name)["path"].to_pylist() == ["0.png"]


def test_array_is_known_by_its_hidden_folder(
    scans: Path, capsys: Said, small_bundle: Bundle
) -> None:
    """An array can't say what it is: it is a job's as long as the folder of its shards is there."""
    command = ["embed", "images", "--out", "o.npy", "--local", str(small_bundle.folder)]
    assert main(command) == main(command) == 0
    shutil.rmtree(".o.npy.job")

    assert "--overwrite replaces it" in refusal(capsys, "images", "--out", "o.npy")


@pytest.mark.parametrize("name", ["o.npy", "o.csv"])
def test_changed_result_is_kept(scans: Path, capsys: Said, small_bundle: Bundle, name: str) -> None:
    """A file that somebody has written over is theirs, though the hidden folder is there."""
    command = ["embed", "images", "--out", name, "--local", str(small_bundle.folder)]
    assert main(command) == 0
    made = Path(name).read_bytes()
    if name == "o.npy":
        np.save(name, np.arange(7))
    else:
        Path(name).write_bytes(made + b"\n")

    assert "--overwrite replaces it" in refusal(capsys, "images", "--out", name)
    assert main([*command, "--overwrite"]) == main(command) == 0
    assert Path(name).read_bytes() == made


def test_hidden_folder_keeps_the_files_of_others(scans: Path, small_bundle: Bundle) -> None:
    """When it goes, only what a job has written goes."""
    Path(".o.parquet.job").mkdir()
    Path(".o.parquet.job/notes.txt").write_text("mine")
    command = ["embed", "images", "--out", "o.parquet", "--local", str(small_bundle.folder)]

    assert main([*command, "--overwrite"]) == main([*command, "--overwrite"]) == 0

    assert [path.name for path in Path(".o.parquet.job").iterdir()] == ["notes.txt"]


def test_link_to_a_result_stays_a_link(scans: Path, small_bundle: Bundle) -> None:
    """The file that it names is written, not the link."""
    Path("kept").mkdir()
    Path("o.csv").symlink_to("kept/rows.csv")
    command = ["embed", "images", "--out", "o.csv", "--local", str(small_bundle.folder)]

    assert main(command) == main(command) == 0

    assert Path("o.csv").is_symlink()
    assert [path.name for path in Path("kept").glob("[!.]*")] == ["rows.csv"]


def test_folder_of_others_is_kept(scans: Path, capsys: Said, small_bundle: Bundle) -> None:
    """It is refused; with --overwrite shards are written, and other files stay."""
    Path("o").mkdir()
    Path("o/thesis.tex").write_text("mine")
    Path("o/job.json").write_text("{}")

    line = refusal(capsys, "images", "--out", "o")

    assert "o holds other files and no _job.json" in line
    command = ["embed", "images", "--out", "o", "--local", str(small_bundle.folder)]
    assert main([*command, "--overwrite"]) == 0
    assert (Path("o/thesis.tex").read_text(), Path("o/job.json").read_text()) == ("mine", "{}")
    assert main(command) == 0


def test_other_job_gives_way_to_overwrite(scans: Path, capsys: Said, small_bundle: Bundle) -> None:
    """Another model's shards go, all of them; a job of its own that was interrupted goes on."""
    run(Path("images"), Path("o"), FakeRunner(), rows=1)
    Path("images/1.png").unlink()
    command = ["embed", "images", "--out", "o", "--local", str(small_bundle.folder)]
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err

    assert main([*command, "--overwrite", "--dry-run"]) == 0
    assert "0 have a row in o, 0 of them failed; 1 would be" in capsys.readouterr().out
    assert main([*command, "--overwrite"]) == 0
    written = shard_path(Path("o"), 0).stat().st_mtime_ns
    assert main([*command, "--overwrite"]) == 0

    assert {path.name for path in Path("o").iterdir()} == {
        ".lock",
        "_job.json",
        "shard-000000.parquet",
    }
    assert shard_path(Path("o"), 0).stat().st_mtime_ns == written


def test_folder_is_read_whole(folder: Make, tmp_path: Path) -> None:
    """Readers of a folder of Parquet files pass over what else a job writes there."""
    run(folder([b"a", b"b", b"c"]), tmp_path / "out", FakeRunner(), rows=2)

    assert pq.read_table(tmp_path / "out")["path"].to_pylist() == [
        "0000.png",
        "0001.png",
        "0002.png",
    ]
