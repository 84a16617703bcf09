"""Patterns and the one walk: what matches, what a name means literally, and where a walk ends."""

import glob
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pinhole.jobs.errors import JobError
from pinhole.jobs.sources import patterns
from pinhole.jobs.sources.opening import open_source
from pinhole.jobs.sources.patterns import expand_braces

from .conftest import contents

TREE = ["a.png", "b.png", "x/a.png", "x/y/b.png", ".h/a.png", "x/.h/a.png", "x/.b.png"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with TREE in it."""
    monkeypatch.chdir(tmp_path)
    for name in TREE:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    [
        *("*.png", "*/*.png", "**/*.png", "**", "x/**", "x/**/b.png", "[!a].png", "?.png"),
        *(".h/*.png", "*/.*/*.png", "**/y/**/*.png", "./x/*.png", "x*/a.png", "**/**/a.png"),
    ],
)
def test_patterns_match_as_in_a_shell(tree: Path, pattern: str) -> None:
    """Here and at a URL, a pattern matches the same files as by Python's own glob."""
    memory = fsspec.filesystem("memory")
    for name in TREE:
        memory.pipe(f"/tree/{name}", name.encode())
    wanted = {name for name in glob.glob(pattern, recursive=True) if Path(name).is_file()}  # noqa: PTH207

    assert set(contents(pattern)) == wanted
    assert set(contents(f"{tree}/{pattern}")) == {f"{tree}/{name}" for name in wanted}
    if not pattern.startswith("."):
        assert set(contents(f"memory://tree/{pattern}")) == {f"/tree/{name}" for name in wanted}


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("{08..10}.tar", ["08.tar", "09.tar", "10.tar"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}/{1..2}", ["a/1", "a/2", "b/1", "b/2"]),
        ("{a,{b,c}}", ["a", "b", "c"]),
        ("{a}{}{1..}", ["{a}{}{1..}"]),
    ],
)
def test_braces(pattern: str, wanted: list[str]) -> None:
    """Numbers keep their leading zeros; what bash leaves alone is left alone."""
    assert expand_braces(pattern) == wanted


@pytest.mark.parametrize("pattern", ["{0..99999999}", "{0..9}{0..9}{0..9}"])
def test_too_many_names(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    """Braces that would fill the memory are refused; the message has the limit."""
    monkeypatch.setattr(patterns, "MOST_NAMES", 500)

    with pytest.raises(JobError, match="stands for more than 500 names"):
        open_source(pattern)


def test_braces_name_files_and_folders(tree: Path) -> None:
    """A name that isn't there has a row that says so; if none is there, SOURCE is refused."""
    found = contents("{a,b,c}.png")

    assert list(found) == ["a.png", "b.png", "c.png"]
    assert "No such file" in str(found["c.png"])
    assert list(contents("{x/y,.h}")) == ["x/y/b.png", ".h/a.png"]
    with pytest.raises(JobError, match=r"\{d,e\}.png is not a folder, file, pattern or URL"):
        open_source("{d,e}.png")


@pytest.mark.parametrize("root", ["", "memory://literal/"])
def test_names_that_look_like_patterns(tree: Path, root: str) -> None:
    """What is there under the very name is meant, as file, as folder, and in a pattern."""
    for name in ("scan[1]/a.png", "scan1/b.png", "what?.png", "{1,2}.png"):
        if root:
            fsspec.filesystem("memory").pipe(f"/literal/{name}", name.encode())
        else:
            (tree / name).parent.mkdir(exist_ok=True)
            (tree / name).write_text(name)

    assert list(contents(f"{root}scan[1]").values()) == [b"scan[1]/a.png"]
    assert list(contents(f"{root}scan[1]/a.png").values()) == [b"scan[1]/a.png"]
    assert list(contents(f"{root}scan[1]/*.png").values()) == [b"scan[1]/a.png"]
    assert list(contents(f"{root}what?.png").values()) == [b"what?.png"]
    assert list(contents(f"{root}{{1,2}}.png").values()) == [b"{1,2}.png"]
    assert list(contents(f"{root}scan[12]/*.png").values()) == [b"scan1/b.png"]


@pytest.mark.parametrize("source", ["loop", "loop/**/*.png", "file://{}/loop", "local://{}/loop"])
def test_links_that_lead_in_circles(tree: Path, source: str) -> None:
    """A link to a folder above is not followed: each image has one row."""
    (tree / "loop" / "in").mkdir(parents=True)
    (tree / "loop" / "in" / "up").symlink_to("..")
    (tree / "loop" / "self").symlink_to("self")
    (tree / "loop" / "in" / "a.png").write_bytes(b"one")

    assert list(contents(source.format(tree)).values()) == [b"one"]


def test_links_are_followed_by_name(tree: Path) -> None:
    """A name or a star matches a linked folder, as in a shell."""
    (tree / "link").symlink_to("x")

    assert list(contents("l*/*.png")) == list(contents("link/*.png")) == ["link/a.png"]


@pytest.fixture
def deep(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder with an image below 1,500 folders, more than Python's recursion allows."""
    Path("deep").mkdir()
    monkeypatch.chdir("deep")
    for _ in range(1_500):
        Path("d").mkdir()
        os.chdir("d")
    Path("a.png").write_bytes(b"deep")
    monkeypatch.chdir(tree)
    yield "deep"
    subprocess.run(["rm", "-r", "deep"], check=True)  # pytest would remove it by recursion.


@pytest.mark.parametrize("names", ["", "/**/*.png"])
def test_trees_of_any_depth(deep: str, names: str) -> None:
    """A walk isn't limited by Python's recursion."""
    assert list(contents(deep + names).values()) == [b"deep"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_folders_that_may_not_be_listed(tree: Path) -> None:
    """Below SOURCE, such a folder is a row with an error; SOURCE itself is refused."""
    (tree / "x" / "y").chmod(0)
    try:
        assert "Permission denied" in str(contents("x")["y/"])
        with pytest.raises(JobError, match="x/y can't be listed: Permission denied"):
            open_source("x/y")
    finally:
        (tree / "x" / "y").chmod(0o700)
