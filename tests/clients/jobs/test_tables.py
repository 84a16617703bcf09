"""Parquet files as people have them: Hugging Face's, of lists, of paths, in series, damaged."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.sources import Content
from pinhole.jobs.sources.opening import open_source

from .conftest import contents

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # Hugging Face's.


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with 0.png, other/0.png and other/1.png in it."""
    monkeypatch.chdir(tmp_path)
    Path("other").mkdir()
    for name in ("0.png", "other/0.png", "other/1.png"):
        Path(name).write_text(name)
    return tmp_path


def write(path: str, column: Any, rows: int | None = None, **others: Any) -> None:
    """A Parquet file with a column ``image`` and others, of row groups of so many rows."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": column, **others}), path, row_group_size=rows)


def is_empty(content: Content) -> bool:
    """Whether this is the fault of an empty cell."""
    return isinstance(content, Fault) and "the cell is empty" in content.message


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())),
        *(pa.binary(3), pa.struct([("bytes", pa.large_binary())])),
    ],
    ids=str,
)
def test_every_type_of_bytes(here: Path, kind: Any) -> None:
    """Whatever Arrow's type of a column of bytes is, its files are read."""
    files: list[Any] = [b"one", None, b"two"]
    if pa.types.is_struct(kind):
        files = [{"bytes": file} for file in files]
    plain = pa.dictionary(pa.int32(), pa.binary()) == kind
    column = pa.array(files).dictionary_encode() if plain else pa.array(files, kind)
    write("a.parquet", column)

    one, nothing, two = contents("a.parquet").values()

    assert (one, two) == (b"one", b"two")
    assert is_empty(nothing)


@pytest.mark.parametrize("make", [pa.list_, pa.large_list])
@pytest.mark.parametrize("structs", [True, False])
def test_lists_of_images(here: Path, make: Any, structs: bool) -> None:
    """Each image of a list is an input; an empty list and a null are an image without a file."""
    lists: list[Any] = [[b"a", b"b"], [], None, [b"c"], [None, b"d"]]
    if structs:
        lists = [each and [{"bytes": file, "path": None} for file in each] for each in lists]
    write("a.parquet", pa.array(lists, make(IMAGE if structs else pa.binary())), rows=2)

    found = contents("a.parquet")

    assert list(found) == ["0/0", "0/1", "1/0", "2/0", "3/0", "4/0", "4/1"]
    assert [name for name, each in found.items() if is_empty(each)] == ["1/0", "2/0", "4/0"]
    assert [each for each in found.values() if not is_empty(each)] == [b"a", b"b", b"c", b"d"]
    source = open_source("a.parquet")
    assert [chunk.names for chunk in source.chunks([1, 4, 6], 9)] == [["0/1", "3/0", "4/1"]]


@pytest.mark.parametrize("typed", [True, False])
def test_bytes_that_are_null_with_a_path(here: Path, typed: bool) -> None:
    """The path is read, relative to the Parquet file, or else to the working directory."""
    paths = ["1.png", "0.png", str(here / "0.png"), "gone.png", "memory://null/a.png"]
    fsspec.filesystem("memory").pipe("/null/a.png", b"remote")
    images = [{"bytes": None, "path": path} for path in paths]
    write("other/a.parquet", pa.array(images, IMAGE) if typed else images)

    found = contents("other/a.parquet")

    assert list(found) == paths
    beside, first_beside, absolute, gone, remote = found.values()
    assert (beside, first_beside) == (b"other/1.png", b"other/0.png")
    assert (absolute, remote) == (b"0.png", b"remote")
    assert "No such file" in str(gone)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_paths(here: Path, kind: Any) -> None:
    """A column of texts holds paths; they are called as they are written."""
    write("a.parquet", pa.array(["other/1.png", "gone.png"], kind), label=[1, 2])

    found = contents("a.parquet")

    assert found["other/1.png"] == b"other/1.png"
    assert "No such file" in str(found["gone.png"])


def test_which_column_of_paths(here: Path) -> None:
    """One that is called image or path is taken, or the only one; otherwise it must be said."""
    pq.write_table(pa.table({"file": ["0.png"], "split": ["train"]}), "a.parquet")

    with pytest.raises(JobError, match=r"2 columns .*file, split.*: say which with --column"):
        open_source("a.parquet")
    assert contents("a.parquet", "file") == {"0.png": b"0.png"}


SERIES = ["hub", "hub/data/train-*.parquet", "hub/data/train-{00000..00002}-of-00003.parquet"]


@pytest.mark.parametrize("root", ["", "memory://"])
@pytest.mark.parametrize("source", SERIES)
def test_hugging_face_layout(here: Path, source: str, root: str) -> None:
    """A folder, pattern or URL of Parquet files; those without images are left out."""
    for part in range(3):
        images = [{"bytes": b"%d%d" % (part, row), "path": f"{row}.png"} for row in range(2)]
        write(f"hub/data/train-{part:05}-of-00003.parquet", pa.array(images, IMAGE), label=[0, 1])
    pq.write_table(pa.table({"path": ["0.png"], "label": [1]}), "hub/labels.parquet")
    Path("hub/README.md").touch()
    for path in Path("hub").rglob("*.*"):
        fsspec.filesystem("memory").pipe(f"/{path}", path.read_bytes())

    found = contents(root + source)

    assert list(found.values()) == [b"%d%d" % (part, row) for part in range(3) for row in range(2)]
    assert next(iter(found)).endswith("data/train-00000-of-00003.parquet/0.png")
    with closing(open_source(root + source)) as opened:
        assert opened.left_out == ({".parquet": 1, ".md": 1} if source == "hub" else {})


def test_one_table_at_a_url(here: Path) -> None:
    """A URL of one Parquet file gives the same names as the file itself."""
    write("a.parquet", pa.array([{"bytes": b"x", "path": "x.png"}], IMAGE))
    fsspec.filesystem("memory").pipe("/one/a.parquet", Path("a.parquet").read_bytes())

    assert contents("memory://one/a.parquet") == contents("a.parquet") == {"x.png": b"x"}


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says what to install for Hugging Face's URLs."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(JobError, match=r"^hf://.* can't be opened: .*pip install huggingface_hub$"):
        open_source("hf://datasets/user/name/data/*.parquet")


def test_url_of_the_hub_reaches_its_file_system(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With huggingface_hub, hf:// is a file system like any other."""

    class Hub(MemoryFileSystem):
        """A stand-in for Hugging Face's file system."""

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(super()._strip_protocol(path.removeprefix("hf://")))

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "hf", Hub)
    write("a.parquet", pa.array([{"bytes": b"x", "path": "x.png"}], IMAGE))
    Hub().pipe("/datasets/user/name/data/a.parquet", Path("a.parquet").read_bytes())

    assert contents("hf://datasets/user/name") == {"data/a.parquet/x.png": b"x"}
    assert list(contents("hf://datasets/user/name/data/*.parquet").values()) == [b"x"]


def test_bad_page_fails_its_row_group(here: Path) -> None:
    """The images that can't be read have an error, and the next row group is read."""
    files = [bytes([index]) * 100 for index in range(6)]
    pq.write_table(
        pa.table({"image": files}), "a.parquet", 2, use_dictionary=False, compression="none"
    )
    about = pq.read_metadata("a.parquet").row_group(1).column(0)
    data = bytearray(Path("a.parquet").read_bytes())
    data[about.data_page_offset : about.data_page_offset + 8] = b"\xff" * 8
    Path("a.parquet").write_bytes(data)

    found = contents("a.parquet")

    assert list(found) == ["0", "1", "2", "3", "4", "5"]
    assert [n for n, each in found.items() if isinstance(each, Fault)] == ["2", "3"]
    assert "damaged in the Parquet file" in str(found["2"])
    assert found["5"] == files[5]


def test_path_that_is_no_utf8_fails_its_row(here: Path) -> None:
    """A program that isn't strict has written it; the other rows are read."""
    paths = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    pq.write_table(pa.table({"image": [b"1", b"2", b"3"], "path": paths}), "a.parquet")
    pq.write_table(pa.table({"path": paths}), "paths.parquet")

    one, bad, three = contents("a.parquet").values()
    with closing(open_source("paths.parquet")) as source:
        assert source.count == 3

    assert (one, three) == (b"1", b"3")
    assert "isn't UTF-8" in str(bad)


@pytest.mark.parametrize("rows", [10_000, 500], ids=["one row group", "many"])
def test_memory_is_flat(here: Path, rows: int) -> None:
    """Reading holds some pages, and not the row group or the file of 40 MB."""
    dice = np.random.default_rng(0)
    write("a.parquet", pa.array([dice.bytes(8_000) for _ in range(5_000)], pa.binary()), rows)
    before, most = pa.total_allocated_bytes(), 0

    for chunk in open_source("a.parquet").chunks(range(5_000), 256):
        most = max(most, pa.total_allocated_bytes() - before)
        assert all(isinstance(each, bytes) and len(each) == 8_000 for each in chunk.load())

    assert most < 25e6
