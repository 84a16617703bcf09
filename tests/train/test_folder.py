"""The user's own images as a dataset."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data import load_dataset
from train.errors import DatasetError


def make_folder(folder: Path, coloured: bool, count: int = 20) -> Path:
    """Pictures of several sizes and modes in two subfolders, circles and stripes."""
    random = np.random.default_rng(0)
    for index in range(count):
        size = int(random.integers(40, 90))
        pixels = np.full((size, size, 3), 230, np.uint8)
        pixels[size // 4 : size // 2, :, :] = (200, 30, 30) if coloured else (40, 40, 40)
        name = folder / ("stripes" if index % 2 else "blocks") / f"{index:03}"
        name.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(pixels)
        if index % 3:
            picture.save(name.with_suffix(".png"))
        else:
            picture.save(name.with_suffix(".jpg"), quality=95)
    return folder


@pytest.mark.parametrize(("coloured", "channels"), [(True, 3), (False, 1)])
def test_images_decide_their_channels(tmp_path: Path, coloured: bool, channels: int) -> None:
    """Coloured files make an RGB dataset, grey ones a grey one; subfolders are labels.

    Hidden folders are passed over.
    """
    make_folder(tmp_path / ".thumbnails", coloured=True)
    dataset = load_dataset("folder", make_folder(tmp_path, coloured), size=32)

    assert dataset.train_images.shape == (16, channels, 32, 32)
    assert dataset.test_images.shape == (4, channels, 32, 32)
    assert set(dataset.train_labels.tolist()) == {0, 1}
    assert dataset.classes == ("blocks", "stripes")


def test_channels_can_be_asked_for(tmp_path: Path) -> None:
    """Coloured files become grey images on request; 4 channels are refused."""
    coloured = make_folder(tmp_path, coloured=True)

    assert load_dataset("folder", coloured, channels=1).train_images.shape[1] == 1
    with pytest.raises(DatasetError, match="1 or 3 channels; input_dim is 4"):
        load_dataset("folder", coloured, channels=4)


def test_broken_files_are_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken file is refused by default and left out with skip_unreadable, always by name."""
    make_folder(tmp_path, coloured=False)
    (tmp_path / "blocks" / "broken.png").write_bytes(b"not an image")

    with pytest.raises(DatasetError, match=r"1 of 21 images .*/blocks/broken\.png"):
        load_dataset("folder", tmp_path)

    dataset = load_dataset("folder", tmp_path, skip_unreadable=True)
    assert len(dataset.train_images) + len(dataset.test_images) == 20
    assert "broken.png" in capsys.readouterr().err


def test_images_outside_a_subfolder_have_a_class_of_their_own(tmp_path: Path) -> None:
    """Names exist where there are two classes or more, and every class has one."""
    make_folder(tmp_path / "photos", coloured=False)
    assert load_dataset("folder", tmp_path).classes == ()

    (tmp_path / "photos" / "blocks" / "000.jpg").rename(tmp_path / "000.jpg")
    assert load_dataset("folder", tmp_path).classes == ("(no folder)", "photos")


def test_a_class_whose_name_is_not_utf8_can_be_told(tmp_path: Path) -> None:
    """The names are metadata, in JSON: bytes that aren't UTF-8 are written out."""
    make_folder(tmp_path, coloured=False)
    (tmp_path / "blocks").rename(tmp_path / os.fsdecode(b"caf\xe9"))

    assert load_dataset("folder", tmp_path).classes == ("caf\\xe9", "stripes")


def make_bursts(folder: Path) -> Path:
    """Six bursts of four pictures, each burst in a grey of its own, three bursts in a folder."""
    for burst in range(6):
        below = folder / f"day{burst // 3}"
        below.mkdir(exist_ok=True, parents=True)
        for index in range(4):
            name = below / f"burst{burst}_{index:04}.png"
            Image.new("L", (8, 8), 40 * burst).save(name)
    return folder


def test_bursts_stay_on_one_side(tmp_path: Path) -> None:
    """Split by prefix, no burst is both learned and tested, or both learned and validated."""
    dataset = load_dataset("folder", make_bursts(tmp_path), split_by="prefix")

    learned, tested = dataset.train_images.unique(), dataset.test_images.unique()
    assert len(learned) == 5
    assert tested.tolist() == [160]
    assert dataset.train_groups is not None
    assert dataset.train_groups.tolist() == [number for number in (0, 1, 2, 3, 5) for _ in range(4)]

    alone = load_dataset("folder", tmp_path)
    assert set(alone.test_images.unique().tolist()) & set(alone.train_images.unique().tolist())


def test_too_few_groups_are_counted(tmp_path: Path) -> None:
    """Two folders can't be split by folder; ten can."""
    make_bursts(tmp_path)
    with pytest.raises(DatasetError, match="split by folder, the images make 2 groups; at least 5"):
        load_dataset("folder", tmp_path, split_by="folder")

    for number in range(2, 10):
        (tmp_path / f"day{number}").mkdir()
        for index in range(2):
            Image.new("L", (8, 8)).save(tmp_path / f"day{number}" / f"{index}.png")
    tested = load_dataset("folder", tmp_path, split_by="folder").test_labels
    assert tested.tolist() == [4, 4, 9, 9]


def test_too_little_is_refused(tmp_path: Path) -> None:
    """A missing folder and a folder of 5 images are refused."""
    with pytest.raises(DatasetError, match="is not a folder"):
        load_dataset("folder", tmp_path / "missing")
    with pytest.raises(DatasetError, match="holds 5 images; at least 15"):
        load_dataset("folder", make_folder(tmp_path, coloured=False, count=5))


def test_a_split_that_leaves_too_few_is_refused(tmp_path: Path) -> None:
    """Before training: two test images have no trustworthiness, ten learned ones no neighbours."""
    for size, counts in (("small", (9, 9, 9, 9, 2)), ("large", (1, 1, 1, 1, 20))):
        for number, count in enumerate(counts):
            below = tmp_path / size / f"day{number}"
            below.mkdir(parents=True)
            for index in range(count):
                Image.new("L", (8, 8)).save(below / f"{index}.png")

    with pytest.raises(DatasetError, match="36 images are for training and 2 for the test"):
        load_dataset("folder", tmp_path / "small", split_by="folder")
    with pytest.raises(DatasetError, match=r"4 images are for training and 20 .* 12 and 3"):
        load_dataset("folder", tmp_path / "large", split_by="folder")


def test_the_last_number_of_a_name_may_stand_anywhere(tmp_path: Path) -> None:
    """tree_0001_small.png and tree_0002_small.png are of one burst."""
    for burst in "abcde":
        for index in range(4):
            Image.new("L", (8, 8), ord(burst)).save(tmp_path / f"{burst}2_{index:04}_small.png")

    dataset = load_dataset("folder", tmp_path, split_by="prefix")

    assert dataset.test_images.unique().tolist() == [ord("e")]


def test_linked_folders_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They aren't entered, since links may make a loop; a class that is left out isn't silent."""
    make_folder(tmp_path / "photos", coloured=False)
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "photos" / "stripes")

    dataset = load_dataset("folder", tmp_path / "photos")

    assert dataset.classes == ("blocks", "stripes")
    assert "linked folders, not entered: 1\n" in capsys.readouterr().err
