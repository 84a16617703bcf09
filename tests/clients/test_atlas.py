"""``pinhole atlas``: a job's embeddings as one file."""

import base64
import io
import json
import re
import zipfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pinhole.atlas
from pinhole.atlas.sample import Classes
from pinhole.cli import main
from serve.bundle.images import PixelBudget, read_image
from serve.bundle.manifest import Bundle, ImageSpec

from .script import Script, serve

if TYPE_CHECKING:
    from train.dataset import Dataset

PATHS = ["cats/1.png", "cats/2.png", "dogs/</script>.png", "dogs/broken.png", "../outside.png"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six rows, one failed, and the images of three of them."""
    images = tmp_path / "images"
    for name in ["cats/1.png", "cats/2.png", "dogs/broken.png"]:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100), "red").save(images / name)
    (images / "dogs/broken.png").write_bytes(b"not an image")
    Image.new("RGB", (9, 9)).save(tmp_path / "outside.png")
    columns: dict[str, Any] = {
        "path": [*PATHS, "failed.png"],
        "embedding": pa.array(
            [[i, 0.5, 2.0] for i in range(5)] + [None], pa.list_(pa.float32(), 3)
        ),
    }
    metadata = {"pinhole.source": str(images)}
    path = tmp_path / "job.parquet"
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def read(page: Path) -> dict[str, Any]:
    """The data within a page."""
    (text,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text()
    )
    data: dict[str, Any] = json.loads(text)
    return data


def test_one_file_with_everything(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Points, labels by folder and thumbnails of what is readable within the job's source."""
    out = table.with_name("atlas.html")

    assert main(["atlas", str(table), "--out", str(out)]) == 0

    data = read(out)
    assert data["paths"] == PATHS
    assert data["embeddings"][4] == [4.0, 0.5, 2.0]
    assert data["labels"] == ["cats", "cats", "dogs", "dogs", ".."]
    assert [bool(thumbnail) for thumbnail in data["thumbnails"]] == [
        True,
        True,
        False,
        False,
        False,
    ]
    said = capsys.readouterr().out
    assert "5 points, 2 thumbnails of images in" in said
    assert "1 failed rows left out" in said
    assert "they show whole files (the result doesn't say what its model saw" in said
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", out.read_text())


def test_thumbnails_show_what_the_model_saw(tmp_path: Path) -> None:
    """Ink is framed as the model frames it; a page without ink is shown as it is."""
    page = np.full((300, 200), 220, np.uint8)
    Image.fromarray(page).save(tmp_path / "blank.png")
    page[100:180, 40:60] = 30
    Image.fromarray(page).save(tmp_path / "one.png")
    spec = ImageSpec(1, 28, 28, "auto", "ink")

    seen, blank = thumbnails(tmp_path, ["one.png", "blank.png"], asdict(spec))
    whole, _ = thumbnails(tmp_path, ["one.png", "blank.png"], {"framing": "unknown"})

    expected = read_image((tmp_path / "one.png").read_bytes(), spec, PixelBudget())[0]
    assert np.abs(seen.astype(int) - expected).mean() < 3  # WebP loses some
    assert blank.shape == whole.shape == (48, 32)
    assert blank.min() > 200
    assert whole[0, 0] > 200


def thumbnails(folder: Path, paths: list[str], image: dict[str, Any]) -> list[np.ndarray]:
    """The thumbnails in the atlas of a table whose metadata say that the model takes ``image``."""
    embeddings = pa.array([[0.0, 0.0]] * len(paths), pa.list_(pa.float32(), 2))
    metadata = {"pinhole.source": str(folder), "pinhole.image": json.dumps(image)}
    table = pa.table({"path": paths, "embedding": embeddings})
    pq.write_table(table.replace_schema_metadata(metadata), folder / "job.parquet")
    out = str(folder / "atlas.html")
    assert main(["atlas", str(folder / "job.parquet"), "--out", out]) == 0
    files = [base64.b64decode(each) for each in read(folder / "atlas.html")["thumbnails"]]
    return [np.asarray(Image.open(io.BytesIO(file)).convert("L")) for file in files]


def test_thumbnails_are_limited(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once the room is used up, points have no thumbnails, and nothing is read for them."""
    monkeypatch.setattr(pinhole.atlas, "MAX_THUMBNAILS_BYTES", 1)
    monkeypatch.setattr(pinhole.atlas, "thumbnail", lambda *_: next(made))
    made = iter([b"WebP"])

    assert main(["atlas", str(table), "--out", str(table.with_name("a.html"))]) == 0

    assert "5 points, 1 thumbnails" in capsys.readouterr().out


def test_points_are_limited(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says how many rows it left out."""
    monkeypatch.setattr(pinhole.atlas, "MAX_POINTS", 2)

    assert main(["atlas", str(table), "--out", str(table.with_name("a.html"))]) == 0

    assert "2 points" in (said := capsys.readouterr().out)
    assert "drawn evenly from 5 rows" in said


@pytest.mark.parametrize("order", ["folder after folder", "in turns"])
def test_points_are_drawn_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """Of a folder's shards, every class has its share of the points, however rows are sorted."""
    monkeypatch.setattr(pinhole.atlas, "MAX_POINTS", 1_000)
    embedding = pa.array([[1.0, 2.0]] * 5_000, pa.list_(pa.float32(), 2))
    for shard in range(4):
        rows = range(shard * 5_000, (shard + 1) * 5_000)
        classes = [i // 5_000 if order == "folder after folder" else i % 4 for i in rows]
        paths = [f"train/{'abcd'[each]}/{i}.png" for each, i in zip(classes, rows, strict=True)]
        table = pa.table({"path": paths, "embedding": embedding})
        pq.write_table(table, tmp_path / f"shard-{shard:06}.parquet")

    assert main(["atlas", str(tmp_path), "--out", str(tmp_path / "a.html")]) == 0

    data = read(tmp_path / "a.html")
    assert len(data["labels"]) == len(set(data["paths"])) == 1_000
    shares = Counter(data["labels"])
    # A binomial of 1,000 with 1/4 has a deviation of 14.
    assert all(abs(shares[each] - 250) < 60 for each in "abcd")


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["a/b/1.png", "a/c/2.png"], ["b", "c"]),
        (["train/cats/1.png", "test/dogs/2.png"], ["cats", "dogs"]),
        (["/data/x/1.png", "/data/y/2.png"], ["x", "y"]),
        (["cats/1.png", "2.png"], ["cats", ""]),
        (["1.png", "2.png"], ["", ""]),
        ([f"{patient}/scan.png" for patient in range(51)], [""] * 51),
    ],
)
def test_folders_name_classes(paths: list[str], labels: list[str]) -> None:
    """The first folder in which paths differ, below train and test; of too many folders, none."""
    classes = Classes.of(paths)

    assert [classes.label(path) for path in paths] == labels


@pytest.mark.parametrize("kind", ["zip", "npy", "glob", "parquet", "column", "archives"])
def test_images_of_any_source(
    tmp_path: Path, small_bundle: Bundle, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thumbnails come from archives, arrays, tables and patterns too, and from folders of them."""
    (tmp_path / "i").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (3, 28, 28), np.uint8)
    files = [tmp_path / "i" / f"{index}.png" for index in range(3)]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(file)
    folder, options = tmp_path / "i", list[str]()
    source = {"glob": f"{folder}/*.png", "archives": str(folder)}.get(kind, f"{tmp_path}/s.{kind}")
    if kind == "archives":
        for file in files[:2]:
            with zipfile.ZipFile(file.with_suffix(".zip"), "w") as archive:
                archive.write(file, file.name)
            file.unlink()
    elif kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for file in files:
                archive.write(file, file.name)
    elif kind == "npy":
        np.save(source, pixels)
    elif kind == "parquet":
        pq.write_table(pa.table({"image": [file.read_bytes() for file in files]}), source)
    elif kind == "column":
        contents = [file.read_bytes() for file in files]
        pq.write_table(pa.table({"front": contents[::-1], "back": contents}), source)
        options = ["--column", "back"]
    out = tmp_path / "o.parquet"
    local = ["--local", str(small_bundle.folder)]
    assert main(["embed", source, "--out", str(out), *local, *options]) == 0

    assert main(["atlas", str(out), "--out", str(tmp_path / "a.html")]) == 0

    assert "3 points, 3 thumbnails;" in capsys.readouterr().out


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("source", ["i", "i/*.png", "{i,i/0.png}", "names.txt"])
def test_images_are_found_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_bundle: Bundle,
    source: str,
    archive: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where files have come and gone, and rows were sorted anew; not what has changed."""
    monkeypatch.chdir(tmp_path)
    Path("i").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (5, 28, 28), np.uint8)
    for index in range(5):
        Image.fromarray(pixels[index]).save(f"i/{index}.png")
    Path("names.txt").write_text("".join(f"i/{index}.png\n" for index in (4, 2, 0, 1, 3, 0)))
    if archive:
        with zipfile.ZipFile("i/all.zip", "w") as members:
            for index in range(5):
                members.write(f"i/{index}.png", f"in/{index}.png")
    job = ["embed", source, "--out", "o.parquet", "--local", str(small_bundle.folder)]
    assert main(job) == 0
    table = pq.read_table("o.parquet")
    pq.write_table(table.sort_by([("sha256", "ascending")]), "sorted.parquet")

    Image.fromarray(pixels[1]).save("i/00.png")
    Path("names.txt").write_text("".join(f"i/{name}.png\n" for name in ("00", 0, 1, 2, 3, 4)))
    Image.fromarray(pixels[1]).save("i/2.png")
    Path("i/3.png").unlink()

    for result in ("o.parquet", "sorted.parquet"):
        capsys.readouterr()
        assert main(["atlas", result, "--out", "a.html"]) == 0
        said = capsys.readouterr().out
        data = read(Path("a.html"))
        shown = {
            Path(path).name
            for path, thumbnail in zip(data["paths"], data["thumbnails"], strict=True)
            if thumbnail and ".zip/" not in path
        }
        assert shown == {"0.png", "1.png", "4.png"}, said


def test_classes_of_the_model(tmp_path: Path, small_bundle: Bundle, digits: "Dataset") -> None:
    """Where no folders name the images, each has the class of the nearest of the model's own."""
    np.save(tmp_path / "in.npy", digits.test_images[:20, 0].numpy())
    local = ["--local", str(small_bundle.folder)]
    job, out = str(tmp_path / "job.parquet"), tmp_path / "a.html"
    assert main(["embed", str(tmp_path / "in.npy"), "--out", job, *local]) == 0

    for options, labels in (
        (local, list(map(str, digits.test_labels[:20].tolist()))),
        ([], [""] * 20),
    ):
        assert main(["atlas", job, "--out", str(out), *options]) == 0
        assert read(out)["labels"] == labels
        assert read(out)["named"] == bool(options)


def test_a_model_of_another_width(
    table: Path, small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result that doesn't name its model may be of another; one line says so."""
    flat = pq.read_table(table).set_column(0, "path", pa.array([f"{i}.png" for i in range(6)]))
    pq.write_table(flat, table)
    command = ["atlas", str(table), "--out", str(table.with_name("a.html"))]

    assert main([*command, "--local", str(small_bundle.folder)]) == 2

    assert "embeddings have 3 numbers, the model's 2" in capsys.readouterr().err


def test_classes_of_a_service(table: Path) -> None:
    """A service tells its classes and where its images lie; folders' names come first."""
    out = table.with_name("a.html")
    flat = pq.read_table(table).set_column(0, "path", pa.array([f"{i}.png" for i in range(6)]))
    pq.write_table(flat, table.with_name("flat.parquet"))
    with serve(Script()) as script:
        script.page = {
            "digest": "d",
            "classes": ["near", "far"],
            "labels": [0, 1],
            "embeddings": [[0, 0.5, 2], [5, 0.5, 2]],
        }
        script.say(200, {"embedding": [0, 0, 0]}, X_Model_Digest="d")
        command = ["--out", str(out), "--url", script.url]

        assert main(["atlas", str(table.with_name("flat.parquet")), *command]) == 0
        assert read(out)["labels"] == ["near", "near", "near", "far", "far"]
        assert main(["atlas", str(table), *command]) == 0
        assert read(out)["labels"] == ["cats", "cats", "dogs", "dogs", ".."]


def test_no_service_is_asked_unless_it_is_named(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PINHOLE_URL is for the commands that need a service."""
    monkeypatch.setenv("PINHOLE_URL", "http://127.0.0.1:9")

    assert main(["atlas", str(table), "--out", str(table.with_name("a.html"))]) == 0


def test_images_elsewhere(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--images names the folder when the source has moved; without it there are no thumbnails."""
    moved = (table.parent / "images").rename(table.parent / "moved")
    command = ["atlas", str(table), "--out", str(table.with_name("a.html"))]

    assert main(command) == 0
    assert "--images FOLDER" in capsys.readouterr().out
    assert main([*command, "--images", str(moved)]) == 0
    assert "2 thumbnails" in capsys.readouterr().out


def test_what_is_no_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that isn't Parquet, lacks the columns, or has no embedding: exit 2, one line."""
    text, other, empty = (tmp_path / name for name in ("a.parquet", "b.parquet", "c.parquet"))
    text.write_text("hello")
    pq.write_table(pa.table({"x": [1]}), other)
    nothing = pa.array([None], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"path": ["a"], "embedding": nothing}), empty)
    out = ["--out", str(tmp_path / "a.html")]

    for path in (text, other, empty):
        assert main(["atlas", str(path), *out]) == 2
        assert "holds no embeddings" in capsys.readouterr().err
    pq.write_table(pq.read_table(empty).slice(1), empty)
    assert main(["atlas", str(empty), *out]) == 2
    assert "holds no embeddings: it has no rows" in capsys.readouterr().err
    assert main(["atlas", str(text), *out, "--images", str(text)]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_files_of_others_are_kept(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page of its own is replaced; the table never is, and anything else by --overwrite only."""
    out, link = table.with_name("a.html"), table.with_name("link.html")
    out.write_text("<!doctype html><title>mine</title>")
    link.hardlink_to(table)
    before = table.read_bytes()

    for path, words in (
        (out, "this file isn't an earlier result; --overwrite replaces it"),
        (table, "is the result, or one of its files"),
        (link, "is the result, or one of its files"),
        ("https://host/a.html", "OUT can't be a URL"),
    ):
        assert main(["atlas", str(table), "--out", str(path)]) == 2
        assert words in (said := capsys.readouterr().err)
        assert said.count("\n") == 1
    assert main(["atlas", str(table), "--out", str(table), "--overwrite"]) == 2
    assert (out.read_text()[-5:], table.read_bytes()) == ("itle>", before)
    assert main(["atlas", str(table), "--out", str(out), "--overwrite"]) == 0
    assert main(["atlas", str(table), "--out", str(out)]) == 0
    assert not list(table.parent.glob(".*"))
