"""The runner in this process, with a small bundle: real images, good and bad, and real kills."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pinhole.cli import main
from pinhole.jobs import sources
from serve.bundle.engine.opening import open_engine
from serve.bundle.images import PixelBudget, read_image, write_png
from serve.bundle.manifest import Bundle
from serve.bundle.score import is_outside, percentile, relative_errors

if TYPE_CHECKING:
    from train.dataset import Dataset


def save(path: Path, image: Image.Image, **options: object) -> None:
    """Write a picture as its suffix says."""
    image.save(path, **options)


def table_of(out: Path) -> list[dict[str, object]]:
    """All rows of a folder of shards, in order."""
    shards = [pq.read_table(path) for path in sorted(out.glob("shard-*.parquet"))]
    return [row for shard in shards for row in shard.to_pylist()]


def test_all_kinds_of_pictures(small_bundle: Bundle, tmp_path: Path) -> None:
    """CMYK, 16 bits, palettes, animations: a local job reads them as the service does."""
    images = tmp_path / "images"
    images.mkdir()
    stroke = np.zeros((40, 48), np.uint8)
    stroke[8:34, 20:26] = 200
    grey = Image.fromarray(stroke)
    save(images / "cmyk.jpg", grey.convert("CMYK"))
    save(images / "deep.png", Image.fromarray(stroke.astype(np.uint16) * 257))
    save(images / "palette.png", grey.convert("P"))
    save(images / "see-through.png", grey.convert("RGBA"))
    save(images / "moving.gif", grey, save_all=True, append_images=[grey.rotate(90)])
    save(images / "moving.webp", grey, save_all=True, append_images=[grey.rotate(90)])

    assert main(["embed", str(images), "--out", str(tmp_path / "o"), *local(small_bundle)]) == 0

    engine, spec = open_engine(small_bundle), small_bundle.manifest.image
    rows = table_of(tmp_path / "o")
    assert len(rows) == 6
    for row in rows:
        pixels = read_image((images / str(row["path"])).read_bytes(), spec, PixelBudget())
        assert row["embedding"] == pytest.approx(engine.embed(pixels[None])[0], abs=1e-5)


def test_bad_pictures_are_rows(
    small_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A bad picture's row has the reason, the summary counts reasons, and the job goes on."""
    images = tmp_path / "images"
    images.mkdir()
    whole = write_png(np.random.default_rng(0).integers(0, 256, (1, 40, 40), np.uint8))
    (images / "empty.png").touch()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    (images / "text.png").write_text("not a picture")
    (images / "good.png").write_bytes(whole)
    (images / "heavy.png").write_bytes(whole + bytes(1 << 20))
    Image.new("1", (8_000, 8_000)).save(images / "wide.png")
    save(images / "floats.tif", Image.fromarray(np.zeros((8, 8), np.float32)))
    monkeypatch.setattr("pinhole.jobs.sources.files.LARGEST_FILE", 1 << 20)
    assert sources.LARGEST_FILE == 16 << 20

    assert main(["embed", str(images), "--out", str(tmp_path / "o"), *local(small_bundle)]) == 1

    errors = {row["path"]: str(row["error"]) for row in table_of(tmp_path / "o") if row["error"]}
    assert errors.keys() == {path.name for path in images.iterdir()} - {"good.png"}
    assert "(0 bytes)" in errors["empty.png"]
    assert "the PNG is truncated" in errors["cut.png"]
    assert "can't be read as an image" in errors["text.png"]
    assert "the limit is 1,048,576" in errors["heavy.png"]
    assert "8000 x 8000 pixels; the limit is 50,000,000" in errors["wide.png"]
    assert "32 bits" in errors["floats.tif"]
    said = capsys.readouterr()
    assert "1 images embedded" in said.out
    assert "failed: 5 InvalidImage, 1 TooLarge" in said.err


def test_files_that_are_left_out_are_told(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the end, in a dry run and in _job.json; hidden files aren't mentioned."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.JFIF").write_bytes(write_png(np.zeros((1, 28, 28), np.uint8)))
    for name in ("a.txt", "b.TXT", "c.mp4", ".DS_Store"):
        (images / name).touch()
    command = ["embed", str(images), "--out", str(tmp_path / "o"), *local(small_bundle)]

    for options in (["--dry-run"], []):
        assert main([*command, *options]) == 0
        assert capsys.readouterr().err == "pinhole: 3 files left out: 2 .txt, 1 .mp4\n"
    job = json.loads((tmp_path / "o" / "_job.json").read_text())
    assert (job["embedded"], job["left_out"]) == (1, {".txt": 2, ".mp4": 1})


def local(bundle: Bundle) -> list[str]:
    """The options of a job in this process."""
    return ["--local", str(bundle.folder), "--device", "cpu"]


@pytest.fixture(scope="module")
def numbers(digits: "Dataset") -> np.ndarray:
    """2,000 pictures, few of them alike: uint8[N, 1, 28, 28]."""
    images = digits.train_images.numpy()
    shifted = [np.roll(images, shift, axis=3) for shift in (0, 1, 2)]
    return np.concatenate(shifted)[:2_000]


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".csv"])
def test_one_file(small_bundle: Bundle, numbers: np.ndarray, tmp_path: Path, suffix: str) -> None:
    """The numbers are the same in any format, in the source's order; no other file is left."""
    np.save(tmp_path / "in.npy", numbers[:300])
    out = tmp_path / f"out{suffix}"
    arguments = ["embed", str(tmp_path / "in.npy"), "--out", str(out), "--shard-rows", "128"]

    assert main([*arguments, *local(small_bundle)]) == 0

    if suffix == ".npy":
        found = np.load(out)
    elif suffix == ".csv":
        found = np.loadtxt(out, delimiter=",", skiprows=1, usecols=(2, 3), ndmin=2)
    else:
        found = np.stack(pq.read_table(out)["embedding"].to_numpy())
        metadata = pq.read_schema(out).metadata
        assert metadata[b"pinhole.source"] == str(tmp_path / "in.npy").encode()
        assert json.loads(metadata[b"pinhole.image"]) == asdict(small_bundle.manifest.image)
    assert found == pytest.approx(open_engine(small_bundle).embed(numbers[:300]), abs=1e-5)
    hidden = {f".{out.name}.job"} - {".out.parquet.job"}
    assert {path.name for path in tmp_path.iterdir()} == {"in.npy", out.name} | hidden


def test_one_file_with_failures(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failed rows are blank in the file, and are embedded by --retry-failed."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(write_png(np.zeros((1, 28, 28), np.uint8)))
    (images / "b.png").write_bytes(b"broken")
    arguments = ["embed", str(images), "--out", str(tmp_path / "o.npy"), *local(small_bundle)]

    assert main(arguments) == 1
    assert np.isnan(np.load(tmp_path / "o.npy")).tolist() == [[False, False], [True, True]]
    assert main([*arguments, "--dry-run", "--retry-failed"]) == 0
    assert "2 have a row" in (said := capsys.readouterr().out)
    assert "1 would be embedded" in said
    (images / "b.png").write_bytes((images / "a.png").read_bytes())
    assert main([*arguments, "--retry-failed"]) == 0

    first, second = np.load(tmp_path / "o.npy")
    assert first.tolist() == second.tolist()
    assert {path.name for path in tmp_path.iterdir()} == {"images", "o.npy", ".o.npy.job"}


def test_scores_are_the_models(small_bundle: Bundle, numbers: np.ndarray, tmp_path: Path) -> None:
    """The mse is of pixels in [0, 1]; the percentile ranks it; outliers are above a percentile."""
    np.save(tmp_path / "in.npy", numbers[:50])
    arguments = ["embed", str(tmp_path / "in.npy"), "--out", str(tmp_path / "o"), "--score"]

    assert main([*arguments, *local(small_bundle)]) == 0

    engine = open_engine(small_bundle)
    remembered = engine.decode(engine.embed(numbers[:50]))
    expected = np.square(remembered - numbers[:50] / 255).mean((1, 2, 3))
    rows = table_of(tmp_path / "o")
    assert [row["mse"] for row in rows] == pytest.approx(expected, abs=1e-5)
    calibration = small_bundle.manifest.calibration
    ranks = [percentile(each, calibration) for each in relative_errors(numbers[:50], expected)]
    assert [row["percentile"] for row in rows] == pytest.approx(ranks, abs=0.5)
    assert (
        main([*arguments, *local(small_bundle), "--overwrite", "--outlier-percentile", "40"]) == 0
    )
    again = table_of(tmp_path / "o")
    assert [row["outlier"] for row in again] == [
        row["percentile"] > 40 or is_outside(np.array(row["embedding"], "f4"), calibration)
        for row in again
    ]
    assert sum(row["outlier"] for row in rows) < sum(row["outlier"] for row in again) < 50


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "o.npy", "--score"], "--score adds columns"),
        (["--out", "o", "--outlier-percentile", "9"], "--outlier-percentile needs --score"),
        (["--out", "o.dat"], "OUT can't be o.dat: name a folder"),
        (["--out", "o", "--local", "nowhere"], "nowhere is no bundle"),
        (["--out", "o", "--precision", "fp64"], "precision must be one of"),
        (["--out", "out.npy"], "the model takes uint8[N, 1, 28, 28]; the source holds"),
    ],
)
def test_impossible_jobs_are_usage(
    small_bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    """Exit code 2 and one line that says why."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o.dat").touch()
    np.save(tmp_path / "in.npy", np.zeros((5, 9, 9), np.uint8))
    where = [] if "--local" in arguments else local(small_bundle)

    assert main(["embed", "in.npy", *where, *arguments]) == 2

    assert words in capsys.readouterr().err


def test_an_array_that_does_not_fit_costs_its_rows(
    small_bundle: Bundle, tmp_path: Path, numbers: np.ndarray
) -> None:
    """Among other files, images of another size are rows with an error; the others go on."""
    folder, out = tmp_path / "mix", tmp_path / "out.parquet"
    folder.mkdir()
    np.save(folder / "a.npy", np.zeros((2, 9, 9), np.uint8))
    np.save(folder / "b.npy", numbers[:2])

    assert main(["embed", str(folder), "--out", str(out), *local(small_bundle)]) == 1

    errors = pq.read_table(out)["error"].to_pylist()
    assert errors == ["the model takes uint8[1, 28, 28]; this is uint8[1, 9, 9]"] * 2 + [None] * 2


def test_little_memory(small_bundle: Bundle, numbers: np.ndarray, tmp_path: Path) -> None:
    """A job loads no second runtime of 200 MB, and pyarrow's own allocator doesn't keep 30 MB."""
    np.save(tmp_path / "in.npy", numbers[:5])
    program = (
        "import sys, pyarrow; from pinhole.cli import main; code = main(sys.argv[1:]); "
        "print(code, 'torch' in sys.modules, pyarrow.default_memory_pool().backend_name)"
    )
    arguments = ["embed", str(tmp_path / "in.npy"), "--out", str(tmp_path / "o")]

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, *local(small_bundle)],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout.splitlines()[-1] == "0 False system", done.stderr


def test_killed_three_times(small_bundle: Bundle, numbers: np.ndarray, tmp_path: Path) -> None:
    """Killed three times at random, a job still ends with every path once, and equal numbers."""
    images = tmp_path / "images"
    images.mkdir()
    for index, pixels in enumerate(numbers):
        (images / f"{index:05}.png").write_bytes(write_png(pixels))
    out, moments = tmp_path / "out", np.random.default_rng(0)
    command = [sys.executable, "-m", "pinhole", "embed", str(images), "--out", str(out)]
    command += ["--shard-rows", "64", *local(small_bundle)]
    for kill in range(1, 4):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as job:
            while job.poll() is None and len(list(out.glob("shard-*"))) < 4 * kill:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.05))
            assert job.poll() is None, "it was done before it could be killed"
            os.kill(job.pid, signal.SIGKILL)

    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=120).returncode == 0

    rows = table_of(out)
    assert [row["path"] for row in rows] == sorted(path.name for path in images.iterdir())
    expected = open_engine(small_bundle).embed(numbers)
    found = np.array([row["embedding"] for row in rows], np.float32)
    assert np.abs(found - expected).max() <= 1e-5 * expected.std()
    assert json.loads((out / "_job.json").read_text())["state"] == "done"


def test_memory_is_flat(small_bundle: Bundle, tmp_path: Path) -> None:
    """Twenty times the images take the same peak of memory."""
    program = (
        "import resource, sys; from pinhole.cli import main; assert main(sys.argv[1:]) == 0; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for count in (2_000, 40_000):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
        np.save(tmp_path / "in.npy", pixels)
        arguments = ["embed", str(tmp_path / "in.npy"), "--out", str(tmp_path / f"{count}")]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                program,
                *arguments,
                "--shard-rows",
                "1000",
                *local(small_bundle),
            ],
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=True,
        )
        peaks.append(int(done.stdout.splitlines()[-1]))

    assert peaks[1] < 1.15 * peaks[0]


def test_stream_of_a_picture(small_bundle: Bundle, tmp_path: Path) -> None:
    """A single image file is a source too."""
    with io.BytesIO() as file:
        Image.new("L", (28, 28)).save(file, "PNG")
        (tmp_path / "one.png").write_bytes(file.getvalue())

    code = main(
        ["embed", str(tmp_path / "one.png"), "--out", str(tmp_path / "o"), *local(small_bundle)]
    )

    assert code == 0
    assert table_of(tmp_path / "o")[0]["path"] == str(tmp_path / "one.png")
