"""``pinhole report``: what a job's result says, as one page and as a list."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pinhole.cli import main
from pinhole.report import duplicates, tally
from serve.bundle.manifest import Bundle

if TYPE_CHECKING:
    from train.dataset import Dataset

EVIL = 'cats/<script>alert("1")</script>&amp;.png'
ROWS: dict[str, list[Any]] = {
    "path": ["cats/1.png", EVIL, "dogs/3.png", "dogs/4.png", "dogs/5.png", "dogs/6.png"],
    "sha256": ["a", "b", "c", "a", None, "f"],
    "embedding": [[0.0, 1.0], [2.0, 3.0], [5.0, 1.0], [0.0, 1.0], None, None],
    "error": [None, None, None, None, "9 bytes are <too> few", "1,234 bytes are <too> few"],
    "mse": [0.01, 0.3, 0.02, 0.01, None, None],
    "percentile": [10.0, 100.0, 60.0, 10.0, None, None],
    "outlier": [False, True, False, False, None, None],
}
TYPES = {
    "embedding": pa.list_(pa.float32(), 2),
    "mse": pa.float32(),
    "percentile": pa.float32(),
    "outlier": pa.bool_(),
}
METADATA = {"pinhole.source": "<gone>", "pinhole.model_digest": "abcdef" * 10}


class Page(HTMLParser):
    """A page's text without its scripts, the tags that it consists of, and what they load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self.loaded = "", list[str](), list[str]()
        self._skip = False
        self.feed(path.read_text("utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._skip = tag in ("script", "style")
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._skip = False

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self.text += f" {data} "


def table(columns: dict[str, list[Any]]) -> pa.Table:
    """Columns as a job writes them."""
    return pa.table({name: pa.array(rows, TYPES.get(name)) for name, rows in columns.items()})


def write(folder: Path, columns: dict[str, list[Any]] = ROWS) -> Path:
    """A job's folder with two shards."""
    folder.mkdir()
    rows = table(columns).replace_schema_metadata(METADATA)
    pq.write_table(rows.slice(0, 4), folder / "shard-000000.parquet")
    pq.write_table(rows.slice(4), folder / "shard-000001.parquet")
    return folder


def test_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures, errors, most unusual images, failures by reason, duplicates; all of it escaped."""
    result, out = write(tmp_path / "job"), tmp_path / "report.html"

    assert main(["report", str(result), "--out", str(out)]) == 0

    said = capsys.readouterr().out
    assert "6 images, 2 failed, 1 outlier, 2 with near-duplicates" in said
    page = Page(out)
    for words in (
        "images 6 embedded 4 failed 2 33 % outliers 1 25 % have near-duplicates 2 50 %",
        "from <gone> , by model abcdefabcdef",
        "25 % of the images are remembered worse than 99 in 100",
        f"cats {EVIL} mse 0.3000 · percentile 100.0 · outlier dogs dogs/3.png mse 0.0200",
        "2 9 bytes are <too> few dogs/5.png dogs/6.png",
        "2 images in 1 group",
        "<gone> is not a folder, file, pattern or URL that can be found",
        "--local BUNDLE or --url URL",
    ):
        assert words in page.text
    assert page.tags.count("script") == 2
    assert all(each.startswith("data:") for each in page.loaded)
    assert b"default-src 'none'" in out.read_bytes()


@pytest.mark.parametrize("name", ["job.parquet", "job.csv"])
def test_one_file(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A .parquet or .csv file is reported like a folder."""
    rows = table(ROWS)
    if name.endswith(".csv"):
        numbers = np.array([row or [np.nan] * 2 for row in ROWS["embedding"]], np.float32)
        for index in range(2):
            column = pa.array(numbers[:, index], from_pandas=True)
            rows = rows.append_column(f"embedding_{index}", column)
        pyarrow.csv.write_csv(rows.drop_columns("embedding"), tmp_path / name)
    else:
        pq.write_table(rows, tmp_path / name)

    assert main(["report", str(tmp_path / name), "--out", str(tmp_path / "r.html")]) == 0

    said = capsys.readouterr().out
    assert "6 images, 2 failed, 1 outlier, 2 with near-duplicates" in said
    assert "9 bytes are <too> few" in Page(tmp_path / "r.html").text


def test_list(tmp_path: Path) -> None:
    """--csv has the most unusual images, the most unusual first, with their scores."""
    command = ["report", str(write(tmp_path / "job")), "--out", str(tmp_path / "r.html")]

    assert main([*command, "--csv", str(tmp_path / "u.csv")]) == 0

    with (tmp_path / "u.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [EVIL, "dogs/3.png", "cats/1.png", "dogs/4.png"]
    assert (rows[0]["sha256"], rows[0]["percentile"], rows[0]["outlier"]) == ("b", "100", "true")


def test_result_without_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page says how to get scores; a list of unusual images can't be made."""
    columns = {name: ROWS[name] for name in ("path", "sha256", "embedding", "error")}
    command = ["report", str(write(tmp_path / "job", columns)), "--out", str(tmp_path / "r.html")]

    assert main(command) == 0
    assert "Embed again with --score" in Page(tmp_path / "r.html").text
    capsys.readouterr()
    (tmp_path / "r.html").unlink()
    assert main([*command, "--csv", str(tmp_path / "u.csv")]) == 2
    assert "the result has no scores: embed with --score" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"job"}


def test_failures_alone(tmp_path: Path) -> None:
    """A job in which nothing could be embedded has a page with the reasons, without a map."""
    columns = {name: rows[4:] for name, rows in ROWS.items()}
    out = tmp_path / "r.html"

    assert main(["report", str(write(tmp_path / "job", columns)), "--out", str(out)]) == 0

    page = Page(out)
    assert "2 9 bytes are <too> few" in page.text
    assert "The map" not in page.text


def test_unfinished_job(tmp_path: Path) -> None:
    """The page says how many images have no row yet."""
    folder, out = write(tmp_path / "job"), tmp_path / "r.html"
    (folder / "_job.json").write_text('{"state": "running", "inputs": 1010}')

    assert main(["report", str(folder), "--out", str(out)]) == 0

    assert "The job isn’t finished: 1,004 are missing." in Page(out).text


def test_shard_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a page or a list, not even with --overwrite: the result would be gone."""
    folder = write(tmp_path / "job")
    shard = folder / "shard-000000.parquet"
    before = shard.read_bytes()

    for outs in (["--out", str(shard)], ["--out", str(tmp_path / "r.html"), "--csv", str(shard)]):
        assert main(["report", str(folder), *outs, "--overwrite"]) == 2
        assert "name another" in capsys.readouterr().err
    assert shard.read_bytes() == before


def test_pictures(tmp_path: Path, small_bundle: Bundle, digits: "Dataset") -> None:
    """With the source and the model, each image has four pictures, and says what differs."""
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.fromarray(digits.test_images[index, 0].numpy()).save(tmp_path / f"images/{index}.png")
    local = ["--local", str(small_bundle.folder)]
    job, out = str(tmp_path / "job.parquet"), tmp_path / "r.html"
    assert main(["embed", str(tmp_path / "images"), "--out", job, *local, "--score"]) == 0

    assert main(["report", job, "--out", str(out), *local]) == 0

    assert Page(out).text.count("original as seen remembered difference") == 3
    (tmp_path / "images/0.png").write_bytes(b"changed")
    assert main(["report", job, "--out", str(out)]) == 0
    text = Page(out).text
    assert text.count("original as seen") == 2
    assert "remembered difference" not in text


def test_model_must_be_the_same(
    tmp_path: Path, small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """What another model remembers would be a lie."""
    command = ["report", str(write(tmp_path / "job")), "--out", str(tmp_path / "r.html")]

    assert main([*command, "--local", str(small_bundle.folder)]) == 2

    assert "was embedded by model abcdefabcdef, and" in capsys.readouterr().err


def test_files_of_others_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own page and list are replaced; what isn't its own by --overwrite, the result never."""
    result, out, listed = tmp_path / "o.parquet", tmp_path / "r.html", tmp_path / "u.csv"
    pq.write_table(table(ROWS), result)
    command = ["report", str(result), "--out", str(out), "--csv", str(listed)]
    assert main(command) == main(command) == 0
    listed.write_text(listed.read_text().replace("outlier\n", "outlier,verdict\n", 1))
    capsys.readouterr()

    for changed, words in (
        ([], "this file isn't an earlier result"),
        (["--csv", str(result), "--overwrite"], "is the result or the page"),
        (["--csv", str(out), "--overwrite"], "is the result or the page"),
        (["--out", str(result), "--overwrite"], "is the result, or one of its files"),
    ):
        assert main([*command, *changed]) == 2
        assert words in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "holds no shards of pinhole embed"),
        ("a.npy", "a .npy file has no names"),
        ("a.csv", "holds no embeddings: it is not a result"),
        ("a.parquet", "holds no embeddings: it is not a result"),
        ("gone", "No such file or directory"),
    ],
)
def test_what_is_no_result(
    tmp_path: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit 2."""
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "a.npy", np.zeros((2, 2), np.float32))
    (tmp_path / "a.csv").write_bytes(b"x,y\n\xff,2\n")
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "a.parquet")

    assert main(["report", str(tmp_path / name), "--out", str(tmp_path / "r.html")]) == 2

    assert words in (said := capsys.readouterr().err)
    assert said.count("\n") == 1


def test_damaged_description(tmp_path: Path) -> None:
    """A result whose description of the model's pictures can't be read is reported without it."""
    result, out = tmp_path / "o.parquet", tmp_path / "r.html"
    pq.write_table(table(ROWS).replace_schema_metadata({"pinhole.image": "{"}), result)

    assert main(["report", str(result), "--out", str(out)]) == 0


def test_damaged_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, on one line."""
    shard = write(tmp_path / "job") / "shard-000001.parquet"
    shard.write_bytes(shard.read_bytes()[:-200])

    assert main(["report", str(shard.parent), "--out", str(tmp_path / "r.html")]) == 2

    assert re.fullmatch(
        r"pinhole: .*shard-000001.parquet is damaged: .*\n", capsys.readouterr().err
    )


def test_duplicates_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long result, cells are compared in several passes, and none is lost or doubled."""
    copies = {name: [rows[0], rows[1], rows[2]] * 7 for name, rows in ROWS.items()}
    copies["path"] = [f"{index}.png" for index in range(21)]
    result = duplicates.Result(tmp_path, [], frozenset(copies), {})
    rows = table(copies).append_column("row", pa.array(range(21)))
    monkeypatch.setattr(duplicates.Result, "batches", lambda *_: iter([rows]))
    monkeypatch.setattr(duplicates, "AT_ONCE", 5)

    found = duplicates.find_duplicates(result, tally.Tally(result))

    assert (found.images, found.groups) == (21, 3)
    assert [group.count for group in found.largest] == [7, 7, 7]
    assert len(found.largest[0].members) == duplicates.MEMBERS


def test_strangers_are_no_duplicates() -> None:
    """100,000 points of a normal law: fewer than a pair a run lies in the same cell."""
    points = np.random.default_rng(0).normal(size=(100_000, 3))

    cells = np.floor(points / duplicates.side_of_cell(*points.shape))

    assert len(np.unique(cells, axis=0)) == len(points)


def test_classes_of_the_model(tmp_path: Path, small_bundle: Bundle, digits: "Dataset") -> None:
    """Where no folders name the images, their labels are the model's, and the page says so."""
    np.save(tmp_path / "in.npy", digits.test_images[:3, 0].numpy())
    local = ["--local", str(small_bundle.folder)]
    job, out = str(tmp_path / "job.parquet"), tmp_path / "r.html"
    assert main(["embed", str(tmp_path / "in.npy"), "--out", job, *local, "--score"]) == 0

    assert main(["report", job, "--out", str(out), *local]) == 0

    text = Page(out).text
    assert "A label is the class of the nearest of the model’s own test images" in text
    assert all(f"difference {int(digits.test_labels[i])} {i} mse" in text for i in range(3))


def test_map_has_classes(tmp_path: Path) -> None:
    """The map's points have their folders' names."""
    out = tmp_path / "r.html"
    assert main(["report", str(write(tmp_path / "job")), "--out", str(out)]) == 0

    (text,) = re.findall(r'id="data">(.*?)</script>', out.read_text("utf-8"))

    assert json.loads(text)["labels"] == ["cats", "cats", "dogs", "dogs"]
