"""The command against a real service: every example of its help and of the README, and --json."""

import contextlib
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pinhole.cli import COMMANDS, main
from serve.bundle.images import write_png
from train.dataset import Dataset

from .conftest import Running

ROOT = Path(__file__).parents[2]
SEVEN = ROOT / "clients" / "examples" / "seven.png"
NAMES = ["", *(command.__name__.rpartition(".")[2] for command in COMMANDS)]

NOT_RUN = {  # what an example contains → why it can't run here
    "https://": "a service somewhere else",
    "s3://": "a bucket",
    "--local": "a bundle in build/",
    "pinhole explore": "serves a page until Ctrl-C",
}


def examples_of(name: str) -> list[str]:
    """The examples in a command's help."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([name, "--help"] if name else ["--help"])
    _, _, examples = text.getvalue().partition("\nexamples:\n")
    return examples.partition("\n\n")[0].splitlines()


def examples() -> list[str]:
    """Every example that can be run here, once, without its explanation."""
    readme = (ROOT / "README.md").read_text()
    shown = re.findall("^    pinhole .*|^    eval .*", readme, re.MULTILINE)
    for name in NAMES:
        shown += examples_of(name)
    commands = dict.fromkeys(re.split(" {3,}", line.strip())[0] for line in shown)
    return [command for command in commands if not any(word in command for word in NOT_RUN)]


def environment(service: Running) -> dict[str, str]:
    """An environment in which ``pinhole`` is this project's command and calls this service."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": programs, "PINHOLE_URL": service.url}


def test_every_command_has_examples() -> None:
    """Every command's --help has examples."""
    assert [name for name in NAMES if not examples_of(name)] == []


@pytest.mark.parametrize("example", examples())
def test_examples_run(service: Running, tmp_path: Path, example: str) -> None:
    """Every example runs as it stands, in a folder with a few images."""
    for name in ("seven.png", "scans/a.png", "scans/b.png", "scans/2026-11/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SEVEN, tmp_path / name)
    if "atlas" in example or "report" in example:
        rows = {"path": ["a.png", "b.png"], "embedding": pa.array([[0.1, 0.2], [0.3, 0.4]])}
        table = pa.table(
            {
                **rows,
                "mse": pa.array([0.1, 0.2], pa.float32()),
                "percentile": pa.array([50, 99.5], pa.float32()),
                "outlier": [False, True],
            }
        )
        (tmp_path / "embeddings").mkdir()
        pq.write_table(table, tmp_path / "embeddings" / "shard-000000.parquet")
        pq.write_table(table, tmp_path / "scans.parquet")

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example],
        cwd=tmp_path,
        env=environment(service),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_scores_for_scripts(
    service: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json, score prints a line of JSON for each path, in order, for failures too."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 28, 28), np.uint8)
    (tmp_path / "noise.png").write_bytes(write_png(noise))
    (tmp_path / "bad.png").write_bytes(b"broken")
    paths = [str(tmp_path / "gone.png"), str(SEVEN), str(tmp_path / "bad.png")]
    paths += [str(tmp_path / "noise.png"), str(tmp_path / "gone too.png")]

    assert main(["score", "--json", "--url", service.url, *paths]) == 1

    gone, seven, bad, noisy, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [row["image"] for row in (gone, seven, bad, noisy, last)] == paths
    assert gone["error"] == last["error"] == "can't be read: No such file or directory"
    assert "can't be read as an image" in bad["error"]
    assert seven.keys() == noisy.keys() == {"image", "mse", "percentile", "outlier"}
    assert (seven["outlier"], noisy["outlier"]) == (False, True)
    assert 0 < seven["mse"] < noisy["mse"] < 1


def test_reconstructions_for_scripts(
    service: Running, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json, reconstruct says where each picture went, over more than one request's files."""
    paths = [tmp_path / f"{index:03}.png" for index in range(1_100)]
    for path, image in zip(paths, np.resize(digits.test_images, (1_100, 1, 28, 28)), strict=True):
        path.write_bytes(write_png(image))
    command = ["reconstruct", "--json", "--url", service.url, "--out", str(tmp_path / "out")]

    assert main([*command, *map(str, paths)]) == 0

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == list(map(str, paths))
    assert all(Path(row["out"]).read_bytes().startswith(b"\x89PNG") for row in rows)
    assert len({row["out"] for row in rows}) == 1_100


def test_what_the_model_saw(
    service: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --seen, reconstruct also writes the picture that the model was given."""
    page = np.full((1, 200, 300), 230, np.uint8)
    page[:, 40:80, 50:56] = 20
    (tmp_path / "photo.png").write_bytes(write_png(page))
    command = ["reconstruct", "--seen", "--json", "--url", service.url, str(tmp_path / "photo.png")]

    assert main(command) == 0

    row = json.loads(capsys.readouterr().out)
    with Image.open(row["seen"]) as seen:
        assert seen.size == (28, 28)
        drawn = np.asarray(seen) > 127
    assert row["seen"] == str(tmp_path / "photo.seen.png")
    assert drawn.any(axis=1).sum() == 20  # the stroke's 40 pixels, scaled to 20 of 28
    assert drawn.any(axis=0).sum() == 3


def test_health_for_scripts(service: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json, health prints one JSON document."""
    assert main(["health", "--json", "--url", service.url]) == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["url"], found["precision"], found["embedding_width"]) == (service.url, "fp32", 2)


@pytest.mark.parametrize(("no_color", "colourful"), [("", True), ("1", False)])
def test_colours_are_for_terminals(
    service: Running, tmp_path: Path, no_color: str, colourful: bool
) -> None:
    """An outlier is coloured on a terminal, unless NO_COLOR is set, and never in a pipe."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 28, 28), np.uint8)
    (tmp_path / "noise.png").write_bytes(write_png(noise))
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "pinhole", "score", tmp_path / "noise.png"]
    variables = {**environment(service), "NO_COLOR": no_color}

    subprocess.run(command, env=variables, stdout=end, check=True, timeout=30)
    piped = subprocess.check_output(command, env=variables, timeout=30)

    seen = os.read(terminal, 10_000)
    os.close(terminal)
    os.close(end)
    assert (b"\x1b[33man outlier\x1b[0m" in seen) == colourful
    assert b"an outlier\n" in piped
