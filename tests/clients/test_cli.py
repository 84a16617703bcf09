"""The command's exits when there is no service to talk to."""

from pathlib import Path

import pytest

from pinhole.cli import main

NOBODY = ["--url", "http://127.0.0.1:9"]


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """--help is where people look first."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])

    assert "pinhole embed scans/ --out scans.parquet" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["embed", "x"], ["health", "--timeout-s", "0"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    """Argparse says what is missing."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_images_of_one_name_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """a.png and a.jpg would share their reconstruction's name."""
    assert main(["reconstruct", "a.png", "a.jpg", *NOBODY]) == 2

    assert "same NAME.reconstruction.png" in capsys.readouterr().err


def test_unreachable_service_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names the address."""
    assert main(["health", *NOBODY]) == 3

    assert (
        capsys.readouterr().err == "pinhole: no answer from http://127.0.0.1:9: ConnectionError\n"
    )


@pytest.mark.parametrize(("make", "words"), [(False, "not a folder"), (True, "no image files")])
def test_source_without_images_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: bool, words: str
) -> None:
    """Before the service is asked anything."""
    source = tmp_path / "images"
    if make:
        source.mkdir()

    assert main(["embed", str(source), "--out", str(tmp_path / "o.parquet"), *NOBODY]) == 2

    assert words in capsys.readouterr().err


def test_job_without_a_service_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that can't begin leaves nothing behind."""
    (tmp_path / "a.png").write_bytes(b"x")

    assert main(["embed", str(tmp_path), "--out", str(tmp_path / "out"), *NOBODY]) == 3

    assert "no answer from http://127.0.0.1:9" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
