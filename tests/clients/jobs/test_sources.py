"""Sources: names, contents and order are the same, whatever the source's form."""

import gzip
import io
import os
import resource
import shutil
import struct
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pinhole.jobs import sources
from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.sources.opening import open_source
from pinhole.jobs.sources.suffixes import LeftOut
from serve.bundle.pictures.kinds import SUFFIXES

from .conftest import contents

NAMES = ["a/y.webp", "a/z.jpg", "b.PNG"]


def make_folder(folder: Path) -> Path:
    """A folder with NAMES, hidden files, and a file that is no image."""
    for name in (*NAMES, "notes.txt", ".hidden.png", ".cache/c.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def make_zip(path: Path) -> Path:
    """NAMES in a zip file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (*NAMES, "notes.txt", "__MACOSX/._b.png"):
            archive.writestr(name, name)
    return path


def make_tar(path: Path, mode: str) -> Path:
    """NAMES in a tar file."""
    with tarfile.open(path, mode) as archive:
        for name in ("notes.txt", *NAMES):
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


def test_only_images_are_listed_at_any_depth(tmp_path: Path) -> None:
    """Files are found by suffix, in any case, and sorted; hidden files and folders are left out."""
    found = contents(make_folder(tmp_path))

    assert found == {name: name.encode() for name in NAMES}
    assert list(found) == NAMES


@pytest.mark.parametrize("name", ["i.zip", "i.tar", "i.tar.gz", "i.tar.xz"])
def test_archives(tmp_path: Path, name: str) -> None:
    """Members are in the archive's order; its kind is told by its content, not its suffix."""
    path = tmp_path / "archive"
    if name.endswith("zip"):
        make_zip(path)
    else:
        make_tar(path, "w:" + {"tar": "", "gz": "gz", "xz": "xz"}[name.rpartition(".")[2]])

    assert [key.removeprefix("./") for key in contents(path)] == NAMES
    assert list(contents(path).values()) == [name.encode() for name in NAMES]


IMAGES = [f"{number}{suffix}" for number, suffix in enumerate(SUFFIXES)]
IMAGES += [name.upper() for name in IMAGES]
OTHERS = ["a.txt", "b.TXT", "c.mp4", "README", "d.00000000000001", ".DS_Store", ".cache/e.txt"]


def make_source(folder: Path, form: str) -> str:
    """A source of this form with IMAGES and OTHERS, which are empty files."""
    for name in IMAGES + OTHERS:
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if form == "folder":
        return str(folder / "files")
    if form == "pattern":
        return str(folder / "files" / "[0-9]*.*")
    if form == "url":
        return f"local://{folder}/files"
    return shutil.make_archive(str(folder / "archive"), form, folder / "files")


@pytest.mark.parametrize("form", ["folder", "pattern", "zip", "tar", "gztar", "url"])
def test_no_suffix_is_forgotten(tmp_path: Path, form: str) -> None:
    """Every suffix that is read is taken, in upper case too; files of any other are counted."""
    given = make_source(tmp_path, form)

    assert sorted(Path(name).name for name in contents(given)) == sorted(IMAGES)
    assert left_out(given) == ({} if form == "pattern" else {".txt": 2, "other": 2, ".mp4": 1})


def left_out(source: Path | str) -> dict[str, int]:
    """What a source leaves out."""
    with closing(open_source(str(source))) as opened:
        return dict(opened.left_out)


def test_what_is_linked_or_named_twice_is_counted(tmp_path: Path) -> None:
    """A linked folder isn't searched, a link in a tar file isn't followed: both are told."""
    folder = make_folder(tmp_path / "folder")
    (folder / "link").symlink_to(folder / "a")
    with tarfile.open(tmp_path / "i.tar", "w") as archive:
        archive.add(folder / "b.PNG", "b.png")
        linked = tarfile.TarInfo("d.png")
        linked.type, linked.linkname = tarfile.LNKTYPE, "b.png"
        archive.addfile(linked)
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as zipped:
        zipped.writestr("b.png", "1")
        with pytest.warns(match="Duplicate name"):
            zipped.writestr("b.png", "2")

    assert left_out(folder) == {".txt": 1, "linked": 1}
    assert left_out(tmp_path / "i.tar") == {"linked": 1}
    assert left_out(tmp_path / "i.zip") == {"named twice": 1}


def test_what_is_left_out_when_nothing_is_left(tmp_path: Path) -> None:
    """A folder without images is refused, and what is there instead is named."""
    for name in ("a.txt", "b.txt", "c.mp4"):
        (tmp_path / name).touch()

    with pytest.raises(JobError, match=r"no image files; 3 files left out: 2 \.txt, 1 \.mp4$"):
        open_source(str(tmp_path))


def test_numbered_suffixes_are_counted_as_one(tmp_path: Path) -> None:
    """Files that a scanner has numbered don't fill the memory, or the screen."""
    counted = LeftOut()
    for number in range(1_000):
        counted.add(f"scan.{number}")

    assert (counted.total(), len(counted), counted["other"]) == (1_000, 101, 900)
    assert str(counted).endswith(".0, 1 .1, 1 .2, 1 .3, …")


@pytest.mark.parametrize("structs", [True, False])
def test_parquet(tmp_path: Path, structs: bool) -> None:
    """Files as bytes, or as structs of bytes and path; an empty cell is an unreadable image."""
    files = [b"one", None, b"three"]
    images = [{"bytes": file, "path": f"{i}.png"} for i, file in enumerate(files)]
    columns = {"image": images if structs else files, "other": [b"x"] * 3}
    path = tmp_path / "table"
    pq.write_table(pa.table(columns), path, row_group_size=2)

    found = contents(path)

    assert list(found) == (["0.png", "1.png", "2.png"] if structs else ["0", "1", "2"])
    first, second, third = found.values()
    assert (first, third) == (b"one", b"three")
    assert isinstance(second, Fault)
    assert list(contents(path, "other").values()) == [b"x"] * 3


def test_unclear_columns_are_refused(tmp_path: Path) -> None:
    """If several columns may hold the images, none is guessed."""
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"left": [b"x"], "right": [b"y"]}), path)

    with pytest.raises(JobError, match=r"2 columns .*left, right.* --column"):
        open_source(str(path))
    with pytest.raises(JobError, match="no column up"):
        open_source(str(path), "up")
    assert contents(path, "right") == {"0": b"y"}


def test_glob_list_and_single_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern, a list by lines, a list by NULs, and a single file are sources."""
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_text("b.PNG\na/z.jpg\n")
    (tmp_path / "nuls.txt").write_bytes(b"b.PNG\0new\nline.png\0")
    (tmp_path / "new\nline.png").write_bytes(b"odd")

    assert list(contents("*/*.*g")) == ["a/z.jpg"]
    assert contents("lines.txt") == {"b.PNG": b"b.PNG", "a/z.jpg": b"a/z.jpg"}
    assert contents("nuls.txt") == {"b.PNG": b"b.PNG", "new\nline.png": b"odd"}
    assert contents("b.PNG") == {"b.PNG": b"b.PNG"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_from_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Line ends and marks that editors and PowerShell write are no part of a name."""
    monkeypatch.chdir(tmp_path)
    names = ["ä.png", "b.png", "c.png"]
    for name in names:
        Path(name).write_text(name)
    Path("list.txt").write_bytes("\r\n".join(names).encode(encoding))

    assert contents("list.txt") == {name: name.encode() for name in names}


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "tgz", "npy", "idx.gz", "parquet"])
def test_any_growing_numbers_can_be_had(tmp_path: Path, form: str) -> None:
    """A resumed job asks for some inputs only; the limits of a chunk hold for them too."""
    path = tmp_path / "source"
    files = {f"{number:03}.png": bytes([number]) for number in range(50)}
    if form == "folder":
        path.mkdir()
        for name, data in files.items():
            (path / name).write_bytes(data)
    elif form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif form in ("tar", "tgz"):
        with tarfile.open(path, "w:gz" if form == "tgz" else "w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = 1
                archive.addfile(member, io.BytesIO(data))
    elif form == "parquet":
        pq.write_table(pa.table({"i": list(files.values())}), path, row_group_size=9)
    else:
        array = np.arange(50, dtype=np.uint8).reshape(50, 1, 1)
        packed = io.BytesIO()
        np.save(packed, array)
        header = struct.pack(">4B3I", 0, 0, 8, 3, 50, 1, 1)
        path.write_bytes(
            packed.getvalue() if form == "npy" else gzip.compress(header + array.tobytes())
        )
    wanted = [3, 4, 5, 20, 21, 47]

    with closing(open_source(str(path))) as source:
        chunks = list(source.chunks(iter(wanted), 4))
        values = [content for chunk in chunks for content in chunk.load()]

    assert [len(chunk.numbers) for chunk in chunks] == [4, 2]
    assert [number for chunk in chunks for number in chunk.numbers] == wanted
    assert [value[0] if isinstance(value, bytes) else value.max() for value in values] == wanted


def test_long_lists_lie_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list on disk gives the same entries as a list in memory."""
    monkeypatch.setattr("pinhole.jobs.sources.listing.IN_MEMORY", 100)
    monkeypatch.setattr("pinhole.jobs.sources.listing.STRIDE", 7)
    for number in range(100):
        (tmp_path / f"{number:03}.png").write_bytes(bytes([number]))

    wanted = [0, 6, 7, 8, 50, 99]

    with closing(open_source(str(tmp_path))) as source:
        (chunk,) = source.chunks(wanted, 100)

    assert list(chunk.load()) == [bytes([number]) for number in wanted]


def test_long_list_without_room_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full $TMPDIR is named, since the user would look for the fault elsewhere."""
    monkeypatch.setattr("pinhole.jobs.sources.listing.IN_MEMORY", 100)
    (tmp_path / "list.txt").write_text("".join(f"{number}.png\n" for number in range(5_000)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(JobError, match=r"no room for the list of inputs \(see \$TMPDIR\)"):
            open_source(str(tmp_path / "list.txt"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_chunks_keep_both_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk ends at its limit of files or bytes, whichever comes first; nothing is left out."""
    monkeypatch.setattr(sources, "CHUNK_BYTES", 10)
    for index, size in enumerate([1, 1, 1, 1, 9, 2, 50]):
        (tmp_path / f"{index}.png").write_bytes(b"9" * size)

    with closing(open_source(str(tmp_path))) as source:
        chunks = list(source.chunks(range(7), 3))

    assert [len(chunk.names) for chunk in chunks] == [3, 2, 1, 1]
    assert [number for chunk in chunks for number in chunk.numbers] == list(range(7))


def test_chunks_of_pixels_keep_the_limit_of_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of an array counts with all its pixels, not with its channels."""
    monkeypatch.setattr(sources, "CHUNK_BYTES", 2 * 8 * 8)
    np.savez(tmp_path / "a.npz", images=np.zeros((5, 8, 8), np.uint8))

    with closing(open_source(str(tmp_path / "a.npz"))) as source:
        chunks = list(source.chunks(range(5), 256))

    assert [len(chunk.names) for chunk in chunks] == [2, 2, 1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no source"),
        (b"hello", "no source"),
        (b"PK\x03\x04 and then nothing", "can't be read as a zip file"),
        (b"\x93NUMPY\x01\x00 and then nothing", "can't be read as an array"),
        (b"PAR1 and then nothing", "can't be read as a Parquet file"),
        (b"\x00\x00\x08\x03\x00", "can't be read as an IDX file"),
        (gzip.compress(b"\x00\x00\x08\x03" + b"\0" * 9, mtime=0)[:-12], "no source|can't be read"),
    ],
)
def test_damaged_sources_are_named(tmp_path: Path, data: bytes, words: str) -> None:
    """The message names the file, and the format that it can't be read as."""
    path = tmp_path / "source"
    path.write_bytes(data)

    with pytest.raises(JobError, match=words):
        open_source(str(path))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_that_was_cut_short_is_refused(tmp_path: Path, mode: str) -> None:
    """A tar file cut between two members is refused, though tarfile itself reads it."""
    path = make_tar(tmp_path / "i.tar", mode)
    size = 3 * 1024 if mode == "w" else path.stat().st_size - 4
    os.truncate(path, size)

    with pytest.raises(JobError, match=r"can't be read|no source"):
        open_source(str(path))


@pytest.mark.parametrize("midway", [False, True])
@pytest.mark.parametrize(
    "name", ["a.npy", "a.tar", "a.tgz", "a.zip", "a.npz", "a.idx.gz", "a.parquet"]
)
def test_source_rewritten_meanwhile_ends_the_job(tmp_path: Path, name: str, midway: bool) -> None:
    """Its images would be embedded under each other's names, or be told to be damaged."""
    path = tmp_path / name

    def write(value: int) -> None:
        pixels = np.full((10, 4, 4), value, np.uint8)
        files = {f"{index}.png": bytes([value] * 2_000) for index in range(10)}
        if name == "a.npy":
            np.save(path, pixels)
        elif name == "a.npz":
            np.savez(path, pixels)
        elif name == "a.idx.gz":
            path.write_bytes(
                gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 10, 4, 4) + bytes(pixels))
            )
        elif name == "a.parquet":
            table = pa.table({"image": list(files.values())})
            pq.write_table(table, path, row_group_size=1, compression="none")
        elif name == "a.zip":
            with zipfile.ZipFile(path, "w") as archive:
                for member, data in files.items():
                    archive.writestr(member, data)
        else:
            with tarfile.open(path, "w:gz" if name == "a.tgz" else "w") as tar:
                for member, data in files.items():
                    header = tarfile.TarInfo(member)
                    header.size = len(data)
                    tar.addfile(header, io.BytesIO(data))

    write(1)
    with closing(open_source(str(path))) as source:
        chunks = source.chunks(range(source.count), 2)
        if midway:
            list(next(chunks).load())
        write(2)
        os.utime(path, ns=(0, 0))

        with pytest.raises(JobError, match="has changed since the job began"):
            [list(chunk.load()) for chunk in chunks]
