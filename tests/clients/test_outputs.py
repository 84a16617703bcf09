"""Pictures that the commands write: never over an image, nor over a picture of somebody else."""

import base64
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pinhole.cli import main
from serve.bundle.images import write_png

from .script import Script, serve

PICTURE = write_png(np.arange(784, dtype=np.uint8).reshape(1, 28, 28))
Said = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a photograph in it."""
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(PICTURE)
    return tmp_path


@pytest.fixture
def service(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """A service, for the commands to find, that answers with nothing yet."""
    with serve(Script()) as script:
        monkeypatch.setenv("PINHOLE_URL", script.url)
        yield script


def remembered() -> dict[str, object]:
    """A reply about one image."""
    picture = base64.b64encode(PICTURE).decode()
    anomaly = {"percentile": 97.3, "outlier": False}
    return {"reconstruction": picture, "seen": picture, "mse": 0.02, "anomaly": anomaly}


def test_drawing_replaces_drawings_only(service: Script, capsys: Said) -> None:
    """A photograph needs --overwrite; what decode has drawn, and an empty file, do not."""
    service.say(200, PICTURE, Content_Type="image/png")
    Path("empty.png").touch()

    assert main(["decode", "0", "1", "--out", "photo.png"]) == 2

    said = capsys.readouterr().err
    assert (
        said == "pinhole: photo.png: this file isn't an earlier result; --overwrite replaces it\n"
    )
    assert (Path("photo.png").read_bytes(), service.requests) == (PICTURE, [])
    for out in ("empty.png", "empty.png", "new.png", "new.png"):
        assert main(["decode", "0", "1", "--out", out]) == 0
    assert main(["decode", "0", "1", "--out", "photo.png", "--overwrite"]) == 0
    pixels = [np.asarray(Image.open(io.BytesIO(data))) for data in (PICTURE, read("photo.png"))]
    assert np.array_equal(*pixels)
    assert main(["decode", "0", "1", "--out", "s3://bucket/x.png"]) == 2
    assert "OUT can't be a URL" in capsys.readouterr().err


def read(name: str) -> bytes:
    """The content of a file."""
    return Path(name).read_bytes()


@pytest.mark.parametrize("out", ["-", "/dev/stdout"])
def test_drawing_into_what_is_no_file(service: Script, out: str) -> None:
    """/dev/stdout is written to, not replaced; what the shell writes is known as a drawing too."""
    service.say(200, PICTURE, Content_Type="image/png")
    command = [sys.executable, "-m", "pinhole", "decode", "0", "1", "--out"]

    done = subprocess.run([*command, out], capture_output=True, timeout=30)

    assert (done.returncode, done.stderr) == (0, b"")
    assert Path("/dev/stdout").is_symlink()
    Path("drawn.png").write_bytes(done.stdout)
    assert subprocess.run([*command, "drawn.png"], timeout=30).returncode == 0


@pytest.mark.parametrize("options", [[], ["--seen"], ["--overwrite"]])
@pytest.mark.parametrize("link", [None, os.link, os.symlink])
def test_reconstruction_is_never_an_input(
    here: Path, capsys: Said, options: list[str], link: object
) -> None:
    """As when ``*.png`` matches what an earlier run has written."""
    name = "photo.seen.png" if "--seen" in options else "photo.reconstruction.png"
    if callable(link):
        link("photo.png", name)
    else:
        Path(name).write_bytes(b"an image")

    assert main(["reconstruct", "photo.png", name, *options, "--url", "http://127.0.0.1:9"]) == 2

    assert f"{name} is one of the images" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert read("photo.png") == PICTURE


@pytest.mark.parametrize("name", ["photo.reconstruction.png", "photo.seen.png"])
def test_reconstruction_replaces_its_own_only(service: Script, capsys: Said, name: str) -> None:
    """Somebody else's picture of that name is left, and the service is asked nothing."""
    service.say(200, remembered())
    Path(name).write_bytes(PICTURE)
    command = ["reconstruct", "photo.png", "--seen"]

    assert main(command) == 2

    assert f"{name}: this file isn't an earlier result" in capsys.readouterr().err
    assert (read(name), service.requests) == (PICTURE, [])
    assert main([*command, "--overwrite"]) == main(command) == 0
    assert read(name) != PICTURE


def test_full_disk_leaves_the_earlier_picture(service: Script) -> None:
    """It is replaced whole or not at all, and nothing half-written stays."""
    service.say(200, PICTURE, Content_Type="image/png")
    command = ["decode", "0", "1", "--out", "drawn.png"]
    assert main(command) == 0
    before = read("drawn.png")
    program = """if True:
        import resource, sys
        from pinhole.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
        sys.exit(main(sys.argv[1:]))
    """

    done = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, timeout=30
    )

    assert (done.returncode, done.stderr) == (2, b"pinhole: drawn.png: File too large\n")
    assert read("drawn.png") == before
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["drawn.png", "photo.png"]
