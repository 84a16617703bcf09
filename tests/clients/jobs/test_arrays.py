"""Arrays of images: .npy, .npz and IDX."""

import gzip
import io
import os
import re
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.sources import arrays
from pinhole.jobs.sources.opening import open_source

from .conftest import contents


@pytest.mark.parametrize("dimensions", [3, 4])
@pytest.mark.parametrize("form", ["npy", "idx", "idx.gz"])
def test_arrays(tmp_path: Path, form: str, dimensions: int) -> None:
    """Images are uint8[C, H, W], named by their number."""
    array = np.arange(7 * 12, dtype=np.uint8).reshape(7, *((1, 3, 4)[4 - dimensions :]))
    path = tmp_path / "array"
    if form == "npy":
        with path.open("wb") as file:
            np.save(file, array)
    else:
        header = struct.pack(f">4B{dimensions}I", 0, 0, 8, dimensions, *array.shape)
        packed = gzip.compress if form.endswith("gz") else bytes
        path.write_bytes(packed(header + array.tobytes()))

    found = contents(path)

    assert list(found) == [str(number) for number in range(7)]
    assert np.array_equal(np.stack(list(found.values())), array.reshape(7, 1, 3, 4))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Callable[..., None]) -> None:
    """The arrays of images in a .npz file, one after another, or the one that is asked for."""
    images = np.arange(5 * 12, dtype=np.uint8).reshape(5, 3, 4)
    save(tmp_path / "a.npz", x_train=images[:3], y_train=np.zeros(3), x_test=images[3:])
    save(tmp_path / "b.npz", y=np.zeros(3))

    found = contents(tmp_path / "a.npz")

    assert list(found) == ["x_train/0", "x_train/1", "x_train/2", "x_test/0", "x_test/1"]
    assert np.array_equal(np.stack(list(found.values())), images.reshape(5, 1, 3, 4))
    assert list(contents(tmp_path / "a.npz", "x_test")) == ["x_test/0", "x_test/1"]
    with closing(open_source(str(tmp_path / "a.npz"))) as source:
        (chunk,) = source.chunks([1, 4], 9)
    assert np.array_equal(np.stack(list(chunk.load())), images[[1, 4]].reshape(2, 1, 3, 4))
    with pytest.raises(JobError, match=r"b.npz holds no uint8\[N, H, W\]"):
        open_source(str(tmp_path / "b.npz"))


def test_arrays_of_other_kinds_are_refused(tmp_path: Path) -> None:
    """Only uint8 arrays hold pixels; the message shows the array's type and shape."""
    np.save(tmp_path / "f.npy", np.zeros((2, 3, 4), np.float32))
    np.save(tmp_path / "d.npy", np.zeros((2, 3), np.uint8))
    with pytest.raises(JobError, match=r"this array is float32\[2, 3, 4\]"):
        open_source(str(tmp_path / "f.npy"))
    with pytest.raises(JobError, match=r"this array is uint8\[2, 3\]"):
        open_source(str(tmp_path / "d.npy"))


def npy(header: str) -> bytes:
    """A .npy file of 32 pixels under a header of one's own."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(32)


def npz(array: NDArray[np.uint8]) -> bytes:
    """A .npz file whose array no longer has its checksum."""
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue().replace(array.tobytes(), bytes(array.size))


SHAPED = "{{'descr': '|u1', 'fortran_order': False, 'shape': {}}}"


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("x.npy", npy(SHAPED.format((3, 4, 4))), "promises 48 bytes of pixels, and it holds 32"),
        ("x.npy", npy(SHAPED.format((10**20, 4, 4))), "was cut short"),
        ("x.npy", npy(SHAPED.format((-2, 4, 4))), r"its shape is \[-2, 4, 4\]"),
        ("x.npy", npy("{[1]: 2}"), "can't be read as an array"),
        ("x.npy", npy("({'a': (1"), "can't be read as an array"),
        ("x.npy", npy("-" * 9_000 + "1"), "can't be read as an array"),
        ("x.npz", npz(np.ones((2, 4, 4), np.uint8)), "can't be read as a .npz file"),
    ],
)
def test_a_damaged_array_costs_one_row(
    tmp_path: Path, name: str, data: bytes, complaint: str
) -> None:
    """It is refused before its first image is read; in a folder, the other files go on."""
    (tmp_path / name).write_bytes(data)
    np.save(tmp_path / "y.npy", np.zeros((2, 4, 4), np.uint8))

    with pytest.raises(JobError, match=complaint):
        open_source(str(tmp_path / name))
    with closing(open_source(str(tmp_path))) as source:
        rows = [row for chunk in source.chunks(range(source.count), 9) for row in chunk.load()]

    (fault,) = [row for row in rows if isinstance(row, Fault)]
    assert re.search(complaint, fault.message)
    assert len(rows) == 3


def test_rows_far_apart_are_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows between the wanted rows aren't read: they may be larger than the memory."""
    np.save(tmp_path / "a.npy", np.arange(4_000, dtype=np.uint32).view(np.uint8).reshape(-1, 4, 4))
    read = list[int]()
    original = arrays.read_rows

    def counting(file: io.BufferedIOBase, count: int, layout: arrays.Layout) -> NDArray[np.uint8]:
        read.append(count)
        return original(file, count, layout)

    monkeypatch.setattr(arrays, "read_rows", counting)
    source = open_source(str(tmp_path / "a.npy"))
    (chunk,) = source.chunks([0, 1, 2, 500, 998, 999], 10)
    firsts = [int(pixels.reshape(-1).view(np.uint32)[0]) for pixels in chunk.load()]

    assert firsts == [0, 4, 8, 2_000, 3_992, 3_996]
    assert read == [3, 1, 2]


def test_array_that_is_cut_short_ends_the_job(tmp_path: Path) -> None:
    """A file that shrinks between listing and reading ends the job, not the process."""
    np.save(tmp_path / "a.npy", np.zeros((100, 4, 4), np.uint8))
    source = open_source(str(tmp_path / "a.npy"))
    os.truncate(tmp_path / "a.npy", 900)

    with pytest.raises(JobError, match="cut short"):
        [list(chunk.load()) for chunk in source.chunks(range(100), 10)]
