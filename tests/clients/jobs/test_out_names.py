"""The names that OUT may have: folders, files, suffixes, colons, URLs."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pinhole.cli import main
from serve.bundle.manifest import Bundle

from .test_out import Said, refusal, snapshot


@pytest.mark.parametrize(
    "name", ["r.jsonl", "r.tsv", "r.csv.gz", "r.npz", "v1.2", "-", "", ".csv", "o.csv."]
)
def test_unknown_suffix_is_refused(scans: Path, capsys: Said, name: str) -> None:
    """It doesn't become a folder, and the line says what is known."""
    before = snapshot(scans)

    line = refusal(capsys, "images", "--out", name)

    assert line == (
        f"pinhole: OUT can't be {name or 'empty'}: name a folder, which ends in / if its name has "
        "a dot, or a file in .parquet, .npy, .csv\n"
    )
    assert snapshot(scans) == before


@pytest.mark.parametrize("name", ["v1.2/", "rows.csv/", "existing.tsv"])
def test_folder_with_a_dot(scans: Path, small_bundle: Bundle, name: str) -> None:
    """A slash at the end, or that it is there already, makes it a folder."""
    Path("existing.tsv").mkdir()

    assert main(["embed", "images", "--out", name, "--local", str(small_bundle.folder)]) == 0

    assert Path(name, "shard-000000.parquet").is_file()


@pytest.mark.parametrize("url", ["s3://me:secret@bucket/o", "gs://bucket/o.csv", "file:///tmp/o"])
def test_url_is_refused(scans: Path, capsys: Said, url: str) -> None:
    """The line says what to do, and shows no password."""
    line = refusal(capsys, "images", "--out", url)

    assert line == (
        f"pinhole: {url.partition('//')[0]}//...: OUT can't be a URL: write to a file or folder of "
        "this host, and copy it there\n"
    )
    assert not list(scans.glob("*:*"))


@pytest.mark.parametrize("name", ["run:1", "s3:/run", "run:1.parquet", "run:1.csv"])
def test_colon_makes_no_uri(scans: Path, capsys: Said, small_bundle: Bundle, name: str) -> None:
    """Such a folder is written and gone on with; such a file is read by the atlas too."""
    command = ["embed", "images", "--out", name, "--local", str(small_bundle.folder)]

    assert main(command) == main(command) == 0

    assert "2 images embedded" in capsys.readouterr().out
    if name.endswith(".parquet"):
        assert main(["atlas", name, "--out", "a.html"]) == 0


def test_colon_in_a_source(scans: Path, small_bundle: Bundle) -> None:
    """A Parquet file of images may have one too."""
    images = [path.read_bytes() for path in sorted(Path("images").iterdir())]
    with Path("run:1.parquet").open("wb") as file:
        pq.write_table(pa.table({"image": images}), file)

    assert main(["embed", "run:1.parquet", "--out", "o", "--local", str(small_bundle.folder)]) == 0


def test_tilde_is_the_home_folder(
    scans: Path, monkeypatch: pytest.MonkeyPatch, small_bundle: Bundle
) -> None:
    """Shells leave it alone in quotes, and some of them after an equals sign."""
    monkeypatch.setenv("HOME", str(scans / "home"))

    assert main(["embed", "images", "--out=~/rows.csv", "--local", str(small_bundle.folder)]) == 0

    assert Path("home/rows.csv").is_file()
    assert not Path("~").exists()
