"""Archives as people have them: in series, in folders, sparse, concatenated, damaged."""

import gzip
import io
import os
import re
import struct
import subprocess
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.sources import Source, opening
from pinhole.jobs.sources.opening import open_source
from pinhole.jobs.sources.places import Place

from .conftest import contents


def write_tar(path: str, names: list[str]) -> None:
    """A tar file of members that hold their own names."""
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))


def write_zip(path: str, names: list[str]) -> None:
    """A zip file of members that hold their own names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)


def open_files() -> int:
    """Number of files that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def write_series() -> dict[str, bytes]:
    """Five tar files as webdataset has them; returns their images by name."""
    for shard in range(5):
        write_tar(f"{shard:03}.tar", [f"{shard}a.jpg", f"{shard}a.json", f"{shard}b.jpg"])
    names = [(f"{shard:03}.tar/", f"{shard}{each}.jpg") for shard in range(5) for each in "ab"]
    return {shard + name: name.encode() for shard, name in names}


@pytest.mark.parametrize("source", ["*.tar", "{000..004}.tar", ".", "list.txt", "memory://series"])
def test_series_of_archives(here: Path, source: str) -> None:
    """A pattern, braces, a folder, a list and a URL of archives give every archive's images."""
    wanted = write_series()
    (here / "list.txt").write_text("".join(f"{shard:03}.tar\n" for shard in range(5)))
    for path in here.glob("*.tar"):
        fsspec.filesystem("memory").pipe(f"/series/{path.name}", path.read_bytes())

    assert contents(source) == wanted
    assert list(contents(source)) == list(wanted)
    with closing(open_source(source)) as opened:
        assert opened.left_out[".json"] == 5


def test_archives_among_images(here: Path) -> None:
    """Images come first, then each archive's, whatever the kinds; a text is left out as before."""
    write_tar("a.tar", ["1.png"])
    write_zip("b.zip", ["2.png", "x/3.png"])
    np.save("c.npy", np.zeros((1, 2, 3), np.uint8))
    np.save("labels.npy", np.zeros(5))
    (here / "z.png").write_bytes(b"image")
    (here / "notes.txt").touch()

    found = contents(".")

    assert list(found) == ["z.png", "a.tar/1.png", "b.zip/2.png", "b.zip/x/3.png", "c.npy/0"]
    with closing(open_source(".")) as opened:
        assert opened.left_out == {".txt": 1, ".npy": 1}


def test_what_was_made_for_something_else_changes_nothing(here: Path) -> None:
    """A job's own result in the folder neither becomes an input nor makes it another source."""
    (here / "a.png").write_bytes(b"image")
    with closing(open_source(".")) as before:
        digest = before.digest
    np.save("embeddings.npy", np.zeros((1, 2), np.float32))

    with closing(open_source(".")) as after:
        assert (after.count, after.digest, after.left_out) == (1, digest, {".npy": 1})


def test_bad_archive_fails_alone(here: Path) -> None:
    """An archive that can't be read is one row with an error, and the rest goes on."""
    wanted = write_series()
    (here / "001.tar").write_bytes((here / "001.tar").read_bytes()[:600])
    (here / "003.tar").unlink()
    (here / "bad.zip").write_bytes(b"PK\x03\x04 and then nothing")

    found = contents("{000..004}.tar")

    faults = {name: each.message for name, each in found.items() if isinstance(each, Fault)}
    assert faults.keys() == {"001.tar", "003.tar"}
    assert "001.tar can't be read as a tar file" in faults["001.tar"]
    assert "No such file" in faults["003.tar"]
    assert len(found) == len(wanted) - 2 * 2 + 2
    with pytest.raises(JobError, match=r"bad.zip can't be read as a zip file"):
        open_source("b*.zip")


def test_pipes_are_not_waited_for(here: Path) -> None:
    """A pipe that is named like an archive is a row with an error; as SOURCE it is refused."""
    (here / "a.png").write_bytes(b"image")
    os.mkfifo("pipe.tar")

    assert "pipe.tar can't be read" in str(contents(".")["pipe.tar"])
    with pytest.raises(JobError, match=r"pipe.tar is not a folder, file, pattern or URL"):
        open_source("pipe.tar")


def test_numbers_across_archives(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed job opens only the archives of the inputs that it asks for, each of them once."""
    values = list(write_series().values())
    wanted = [1, 2, 3, 8]
    opened = list[str]()

    with closing(open_source("*.tar")) as source:
        original = opening.file_source

        def counting(place: Place, column: str | None, alone: bool) -> Source:
            opened.append(place.path)
            return original(place, column, alone)

        monkeypatch.setattr(opening, "file_source", counting)
        chunks = [*source.chunks([1, 2], 100), *source.chunks([3, 8], 100)]

    assert opened == ["000.tar", "001.tar", "004.tar"]
    assert [number for chunk in chunks for number in chunk.numbers] == wanted
    assert [each for chunk in chunks for each in chunk.load()] == [values[n] for n in wanted]


def test_chunks_outlive_their_archive(here: Path) -> None:
    """A zip file stays open until the last of its chunks has been read, and no longer."""
    for index in range(5):
        write_zip(f"{index}.zip", [f"{index}.png"])
    before = open_files()

    with closing(open_source("*.zip")) as source:
        chunks = list(source.chunks(range(5), 10))
        assert [list(chunk.load()) for chunk in chunks] == [[f"{n}.png".encode()] for n in range(5)]
        del chunks
        assert open_files() <= before + 1


def test_archive_that_changes_ends_the_job(here: Path) -> None:
    """Its images would be other images than those that were counted."""
    write_series()
    with closing(open_source("*.tar")) as source:
        write_tar("002.tar", ["other.jpg"])
        os.utime("002.tar", ns=(0, 0))

        with pytest.raises(JobError, match=r"002.tar has changed since the job began"):
            list(source.chunks(range(source.count), 10))


@pytest.mark.parametrize("packed", [False, True])
def test_concatenated_tars(here: Path, packed: bool) -> None:
    """What follows an end mark is read too; what is no tar file there is refused."""
    write_tar("a.tar", ["a.png"])
    write_tar("b.tar", ["b.png", "c.png"])
    both = Path("a.tar").read_bytes() + Path("b.tar").read_bytes()
    pack = gzip.compress if packed else bytes
    (here / "both").write_bytes(pack(both))
    (here / "bad").write_bytes(pack(both + b"x" * 512))

    assert list(contents("both").values()) == [b"a.png", b"b.png", b"c.png"]
    with pytest.raises(JobError, match="bad can't be read as a tar file"):
        open_source("bad")


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_header_is_no_end(here: Path, packed: bool) -> None:
    """Python's tarfile ends at a damaged header, and loses the members after it."""
    write_tar("a.tar", ["a.png", "b.png", "c.png"])
    data = bytearray(Path("a.tar").read_bytes())
    data[1024] ^= 1  # The name of the second member: the header's checksum is wrong now.
    (here / "bad").write_bytes(gzip.compress(data) if packed else data)

    with pytest.raises(JobError, match="bad can't be read as a tar file"):
        open_source("bad")


FORMATS = ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_sparse_members(here: Path, form: str, packed: bool) -> None:
    """``tar -S`` leaves holes out of files; they are zeros again when they are read."""
    version = subprocess.run(["tar", "--version"], capture_output=True, text=True, check=True)
    if "GNU" not in version.stdout:
        pytest.skip("only GNU tar writes sparse members")
    with open("some.png", "wb") as file:  # noqa: PTH123
        file.write(b"A" * 5_000)
        file.seek(300_000)
        file.write(b"B" * 5_000)
        file.truncate(400_000)
    Path("whole.png").write_bytes(b"whole")
    Path("hole.png").touch()
    os.truncate("hole.png", 200_000)
    names = ["some.png", "whole.png", "hole.png"]
    command = ["tar", "-S", *f"--format={form}".split(), "-cf", "a.tar", *names]
    subprocess.run(command, check=True)
    data = Path("a.tar").read_bytes()
    assert len(data) < 100_000
    Path("a").write_bytes(gzip.compress(data) if packed else data)

    assert contents("a") == {name: Path(name).read_bytes() for name in names}


@pytest.mark.parametrize(
    ("method", "flags", "words"),
    [
        (9, 0, "compressed by Deflate64; only Deflate is read"),
        (12, 0, "compressed by bzip2; only"),
        (14, 0, "compressed by LZMA; only"),
        (93, 0, "compressed by Zstandard; only"),
        (77, 0, "compressed by method 77; only"),
        (0, 1, "it is encrypted"),
    ],
)
def test_zip_members_that_cant_be_read(here: Path, method: int, flags: int, words: str) -> None:
    """The row's error names the compression; the other members are read."""
    write_zip("a.zip", ["a.png", "b.png"])
    data = bytearray(Path("a.zip").read_bytes())
    entry = data.index(b"PK\x01\x02")  # Of the first member, in the directory.
    for flags_at in (6, entry + 8):
        struct.pack_into("<HH", data, flags_at, flags, method)
    Path("a.zip").write_bytes(data)

    bad, good = contents("a.zip").values()

    assert isinstance(bad, Fault)
    assert re.search(words, bad.message)
    assert good == b"b.png"


def test_empty_and_damaged_archives_are_named(here: Path) -> None:
    """An empty zip file is one; a compressed tar file whose data are damaged isn't another kind."""
    write_zip("empty.zip", [])
    write_tar("a.tar", ["a.png"])
    data = bytearray(gzip.compress(Path("a.tar").read_bytes()))
    data[len(data) // 2] ^= 0xFF
    Path("bad.tar.gz").write_bytes(data)

    with pytest.raises(JobError, match=r"empty.zip holds no image files"):
        open_source("empty.zip")
    with pytest.raises(JobError, match=r"bad.tar.gz can't be read as a tar file"):
        open_source("bad.tar.gz")
