"""The command's exits when there is no service to talk to, or nobody to listen."""

import base64
import itertools
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

import pinhole
from pinhole import progress, transport
from pinhole.cli import main
from pinhole.progress import job_progress
from serve.bundle.manifest import Bundle

from .script import Script, serve

NOBODY = ["--url", "http://127.0.0.1:9"]
PINHOLE = [sys.executable, "-m", "pinhole"]


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """--help is where people look first."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])

    assert "pinhole embed scans/ --out scans.parquet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["embed", "x"], "required: --out"),
        (["health", "--timeout-s", "0"], "argument --timeout-s: "),
        (["health", "--timeout-s", "inf"], "argument --timeout-s: "),
        (["health", "--timeout-s", "nan"], "argument --timeout-s: "),
        (["health", "--api-key", "abc\n"], "argument --api-key: "),
        (["explore", "--port", "70000"], "argument --port: "),
        (["explore", "--port", "-1"], "argument --port: "),
        (["health", "--url", "localhost:8080"], "argument --url: "),
        (["completion", "cmd"], "invalid choice: 'cmd'"),
        (["embed", "x", "--out", "y", "--url", "http://host", "--local", "z"], "not allowed with"),
        (["report", "x", "--out", "y", "--url", "http://host", "--local", "z"], "not allowed with"),
    ],
)
def test_wrong_usage_exits_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Argparse says what is missing or wrong."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)

    assert words in capsys.readouterr().err


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    """--version and __version__ are the installed distribution's."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])

    assert capsys.readouterr().out == f"pinhole {version('pinhole-autoencoder')}\n"
    assert pinhole.__version__ == version("pinhole-autoencoder")


def test_images_of_one_name_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """a.png and a.jpg would share their reconstruction's name."""
    assert main(["reconstruct", "a.png", "a.jpg", *NOBODY]) == 2

    assert "same NAME.reconstruction.png" in capsys.readouterr().err


def test_unreachable_service_exits_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is one line that names the address."""
    monkeypatch.setattr(transport, "PAUSE_S", 0)
    monkeypatch.setattr(transport, "JITTER_S", 0)

    assert main(["health", *NOBODY]) == 3

    assert capsys.readouterr().err == (
        "pinhole: no answer from http://127.0.0.1:9: ConnectionError; is the service running? "
        "python -m serve BUNDLE starts it on this host\n"
    )


def test_secrets_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a key that can't be sent nor a password in a URL appears in a message."""
    monkeypatch.setattr(transport, "RETRIES", 0)
    monkeypatch.setenv("PINHOLE_API_KEY", "secret\n")
    with pytest.raises(SystemExit, match="2"):
        main(["health"])
    monkeypatch.delenv("PINHOLE_API_KEY")
    with pytest.raises(SystemExit, match="2"):
        main(["health", "--url", "ftp://me:secret@host"])

    assert main(["health", "--url", "http://me:secret@127.0.0.1:9"]) == 3

    said = capsys.readouterr().err
    assert "an API key is ASCII without spaces and line breaks" in said
    assert "no answer from http://127.0.0.1:9" in said
    assert "secret" not in said


def test_progress_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log has a line every 30 s; what earlier runs have done doesn't count for the rate."""
    clock = itertools.count(0, 12)  # seconds
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))

    with job_progress(10_000) as advance:
        for count in (4_000, 0, 200, 300, 100, 100, 400):
            advance(count)

    assert capsys.readouterr().err.splitlines() == [
        "pinhole: 4,500 of 10,000 images, 14 images/s, 0:06:36 left",
        "pinhole: 5,100 of 10,000 images, 17 images/s, 0:04:54 left",
    ]


@pytest.mark.parametrize(("make", "words"), [(False, "not a folder"), (True, "no image files")])
def test_source_without_images_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: bool, words: str
) -> None:
    """The source is looked at before the service is asked anything."""
    source = tmp_path / "images"
    if make:
        source.mkdir()

    assert main(["embed", str(source), "--out", str(tmp_path / "o.parquet"), *NOBODY]) == 2

    assert words in capsys.readouterr().err


def test_output_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the file and says why, in words."""
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "folder"

    assert main(["reconstruct", "a.png", "--out", str(folder), *NOBODY]) == 2

    assert capsys.readouterr().err == f"pinhole: {folder}: Not a directory\n"


def test_base_install_is_enough() -> None:
    """Client and command load with requests and numpy alone."""
    program = """if True:
        import sys
        for name in ("PIL", "pyarrow", "rich", "shtab", "torch", "serve"):
            sys.modules[name] = None  # importing it fails
        from pinhole.cli import main
        main(["--help"])
    """

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)

    assert (done.returncode, done.stderr) == (0, b"")


def test_closed_stdout_and_stderr(tmp_path: Path) -> None:
    """As in ``pinhole … >&- 2>&-``: the exit code tells, and no other output gets the error."""
    out = tmp_path / "out"
    command = shlex.join([*PINHOLE, "health", "--url", "http://127.0.0.1:9"])

    assert subprocess.run(["sh", "-c", f"{command} >&- 2>&-"], timeout=60).returncode == 3
    with out.open("wb") as file:
        done = subprocess.run(["sh", "-c", f"{command} 2>&-"], stdout=file, timeout=60)
    assert (done.returncode, out.read_bytes()) == (3, b"")
    full = subprocess.run(["sh", "-c", f"{command} 2>/dev/full"], timeout=60)
    assert full.returncode == 3


@pytest.mark.parametrize("arguments", [["--help"], ["completion", "bash"]])
def test_closed_pipe_ends_quietly(arguments: list[str]) -> None:
    """As in ``pinhole … | head``: no traceback, and the exit code of a broken pipe."""
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [*PINHOLE, *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # argparse itself forgives an unbuffered pipe
        timeout=30,
    )

    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_interrupt_ends_quietly() -> None:
    """Ctrl-C while an answer is awaited: no traceback, and the exit code of an interrupt."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with subprocess.Popen(
            [*PINHOLE, "health", "--url", url], stderr=subprocess.PIPE
        ) as process:
            connection, _ = mute.accept()
            connection.recv(1)  # The command has sent its request.
            # It is to wait for the answer: Python sees a signal of the moment before that wait only
            # when the wait has ended.
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)

            _, said = process.communicate(timeout=10)
            connection.close()

    assert (process.returncode, said) == (130, b"")


def test_bash_completes_words_and_files(tmp_path: Path) -> None:
    """The shell completes commands, options and, where a command takes them, files."""
    script = tmp_path / "pinhole.bash"
    script.write_bytes(subprocess.check_output([*PINHOLE, "completion", "bash"]))
    (tmp_path / "seven.png").touch()

    def complete(*words: str) -> list[str]:
        program = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_pinhole pinhole '
        program += '"${COMP_WORDS[-1]}" ""; printf "%s\\n" "${COMPREPLY[@]}"'
        command = ["bash", "-c", program, str(script), "pinhole", *words]
        return subprocess.check_output(command, text=True, cwd=tmp_path, timeout=30).split()

    assert complete("rec") == ["reconstruct"]
    assert complete("score", "--js") == ["--json"]
    assert complete("score", "sev") == ["seven.png"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_know_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The scripts name every command; only these shells themselves could run them."""
    assert main(["completion", shell]) == 0

    script = capsys.readouterr().out
    assert all(word in script for word in ("health", "embed", "score", "timeout-s"))


def test_job_without_a_service_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that can't begin leaves nothing behind."""
    (tmp_path / "a.png").write_bytes(b"x")

    assert main(["embed", str(tmp_path), "--out", str(tmp_path / "out"), *NOBODY]) == 3

    assert "no answer from http://127.0.0.1:9" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_embedding_that_is_refused_is_not_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is told, and no file is written."""
    out = tmp_path / "x.png"
    with serve(Script()) as script:
        script.say(400, {"code": 400, "type": "InvalidEmbedding", "message": "not finite"})

        assert main(["decode", "nan", "1", "--out", str(out), "--url", script.url]) == 2

    assert capsys.readouterr().err == "pinhole: not finite\n"
    assert not out.exists()


def test_folders_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder stands for its images at any depth, but for those that a command has drawn."""
    for name in ("b/2.png", "b/.hidden/3.png", "1.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    with serve(Script()) as script:
        picture = base64.b64encode(bytes(33)).decode()
        anomaly = {"percentile": 1, "outlier": False, "outside": False}
        fields = {"mse": [0.5] * 2, "anomaly": [anomaly] * 2, "errors": []}
        script.say(200, {**fields, "reconstructions": [picture] * 2})
        script.say(200, {**fields, "embeddings": [[0, 1]] * 2})

        assert main(["reconstruct", str(tmp_path), "--url", script.url]) == 0
        assert main(["score", str(tmp_path), "--url", script.url]) == 0

    told = [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()]
    names = ("1.reconstruction.png", "b/2.reconstruction.png", "1.png", "b/2.png")
    assert told == [str(tmp_path / name) for name in names]


def test_a_name_that_no_picture_can_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before any picture is drawn, and so before any is lost."""
    (tmp_path / f"{'x' * 250}.png").write_bytes(b"image")

    assert main(["reconstruct", str(tmp_path), "--url", "http://127.0.0.1:1"]) == 2

    assert "its name has over 255 bytes; rename the image" in capsys.readouterr().err


def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder or by its name, it is no file; nothing is asked about it."""
    os.mkfifo(tmp_path / "pipe.png")
    with serve(Script()) as script:
        for named in (tmp_path, tmp_path / "pipe.png"):
            assert main(["score", str(named), "--url", script.url]) == 1

            said = capsys.readouterr().err
            assert said == f"{tmp_path}/pipe.png: can't be read: Not a file\n"


def test_a_folder_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, and no service is asked."""
    assert main(["score", str(tmp_path), *NOBODY]) == 2

    assert capsys.readouterr().err == f"pinhole: {tmp_path} holds no image files\n"


def test_several_files_are_embedded(
    tmp_path: Path, small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files and folders, in their order; the result finds its images again."""
    (tmp_path / "b").mkdir()
    for name in ("c.png", "b/a.png", "b/[1].png"):
        Image.new("L", (28, 28), 9).save(tmp_path / name)
    given = [str(tmp_path / name) for name in ("c.png", "b", "b/[1].png")]
    out = tmp_path / "o.parquet"
    local = ["--out", str(out), "--local", str(small_bundle.folder)]

    assert main(["embed", *given, *local]) == 0
    assert main(["atlas", str(out), "--out", str(tmp_path / "a.html")]) == 0

    paths = pq.read_table(out)["path"].to_pylist()
    assert paths == [
        str(tmp_path / name) for name in ("c.png", "b/[1].png", "b/a.png", "b/[1].png")
    ]
    assert "4 thumbnails" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--device", "cuda"], "--device and --precision need --local"),
        (["--ray-workers", "2"], "--ray-workers needs --ray"),
        (["--patience-s", "9", "--local", "b"], "--timeout-s and --patience-s need a service"),
        (["--timeout-s", "9", "--local", "b"], "--timeout-s and --patience-s need a service"),
    ],
)
def test_options_that_need_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], words: str
) -> None:
    """Nothing would take notice of them."""
    command = ["embed", str(tmp_path), "--out", str(tmp_path / "o.parquet")]

    assert main([*command, *option, *([] if "--local" in option else NOBODY)]) == 2

    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([f"{index}.png" for index in range(101)], "101 names; the limit is 100: quote a pattern"),
        (["a.png", "b,c.png"], "SOURCE b,c.png: a URL, a comma or a brace"),
        (["a.png", "s3://bucket/b"], "SOURCE s3://bucket/b: a URL, a comma or a brace"),
    ],
)
def test_several_names_that_are_refused(
    names: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pattern that the shell has expanded is one of them: it should be quoted."""
    assert main(["embed", *names, "--out", str(tmp_path / "o.parquet"), *NOBODY]) == 2

    assert words in capsys.readouterr().err
