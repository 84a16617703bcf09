"""What is accepted as an image, and how many images make a request."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pinhole.errors import BadRequest
from pinhole.images import Item, is_single, read_images
from pinhole.limits import FILES, ROWS, Limits, ask_in_rounds, cut, read_limits, too_large
from serve.bundle.images import PixelBudget, read_image
from serve.bundle.manifest import ImageSpec

GREY = np.arange(30, dtype=np.uint8).reshape(5, 6)
RGB = np.arange(90, dtype=np.uint8).reshape(5, 6, 3)


def test_every_kind_of_file_is_its_bytes(tmp_path: Path) -> None:
    """A path, bytes and an open file, of every type, give the file's bytes."""
    path = tmp_path / "a.png"
    path.write_bytes(b"file")

    with path.open("rb") as file:
        kinds = [path, str(path), b"file", bytearray(b"file"), memoryview(b"file"), file]
        assert all(map(is_single, kinds))
        assert list(read_images(kinds)) == [b"file"] * 6


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(GREY),
        Image.fromarray(RGB),
        Image.fromarray(GREY).convert("1"),
        Image.fromarray(RGB).convert("P"),
        Image.fromarray(RGB).convert("PA"),
        Image.fromarray(RGB).convert("CMYK"),
        Image.fromarray(RGB).convert("YCbCr"),
        Image.fromarray(GREY.astype(np.uint16) * 257),
        Image.frombytes("I;16B", (6, 5), (GREY.astype(">u2") * 257).tobytes()),
    ],
    ids=lambda picture: picture.mode,
)
def test_pillow_images_lose_nothing(picture: Image.Image) -> None:
    """The file that is sent has the image's mode, pixels and orientation."""
    picture.getexif()[0x0112] = 6  # turned by a quarter

    (sent,) = read_images(picture)

    assert isinstance(sent, bytes)
    with Image.open(io.BytesIO(sent)) as received:
        assert received.mode == picture.mode
        upright, expected = ImageOps.exif_transpose(received), ImageOps.exif_transpose(picture)
        assert np.array_equal(np.asarray(upright), np.asarray(expected))
        assert upright.size == (5, 6)


@pytest.mark.parametrize(
    ("mode", "sent_as"), [("La", "LA"), ("RGBa", "RGBA"), ("HSV", "RGB")], ids=str
)
def test_pillow_images_of_modes_that_no_file_holds(mode: str, sent_as: str) -> None:
    """They are sent as Pillow converts them."""
    via = {"La": "LA", "RGBa": "RGBA"}.get(mode, "RGB")
    picture = Image.fromarray(RGB).convert(via).convert(mode)

    (sent,) = read_images(picture)

    assert isinstance(sent, bytes)
    with Image.open(io.BytesIO(sent)) as received:
        assert received.mode == sent_as
        assert np.array_equal(np.asarray(received), np.asarray(picture.convert(sent_as)))


def test_what_the_service_reads_of_rare_modes() -> None:
    """Every mode that is sent is read, with the greys that Pillow itself would give."""
    spec = ImageSpec(channels=1, height=5, width=6, polarity="keep", framing="pad")
    grey = Image.fromarray(GREY)
    rare = [grey.convert("RGB").convert(mode) for mode in ("CMYK", "YCbCr", "HSV", "RGBX", "RGBA")]
    deep = [
        Image.frombytes(f"I;16{end}", (6, 5), (GREY.astype(kind) * 257).tobytes())
        for end, kind in (("", "<u2"), ("B", ">u2"), ("L", "<u2"))
    ]
    for picture in [*rare, *deep, grey.convert("P").convert("PA"), grey.convert("LA")]:
        (sent,) = read_images(picture)
        assert isinstance(sent, bytes)
        found = read_image(sent, spec, PixelBudget()).astype(int)
        # The conversion to YCbCr and back rounds.
        assert np.abs(found - GREY).max() <= 1, picture.mode


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_pillow_images_without_a_known_white_are_refused(mode: str) -> None:
    """The message says what to send instead."""
    with pytest.raises(ValueError, match=f"image 1: .* mode {mode} is not read; scale"):
        list(read_images([b"x", Image.new(mode, (5, 5))]))


def test_text_files_are_refused_whatever_they_hold(tmp_path: Path) -> None:
    """A picture opened in text mode isn't even UTF-8; the mistake is named, not the encoding."""
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "b.txt").write_text("text")

    for name in ("a.png", "b.txt"):
        with (
            (tmp_path / name).open(encoding="utf-8") as file,
            pytest.raises(TypeError, match="opened in binary mode"),
        ):
            list(read_images(file))


def test_arrays_of_other_libraries() -> None:
    """A torch tensor is an array like numpy's, alone or among others."""
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(GREY)

    for images in (tensor, [tensor], tensor[None, None]):
        (found,) = read_images(images)
        assert np.array_equal(found, GREY[None])
    assert [is_single(images) for images in (tensor, tensor[None, None])] == [True, False]
    with pytest.raises(TypeError, match=r"float32: .* send \(255 \* x\)\.astype\(np\.uint8\)"):
        list(read_images(tensor / 255))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, [GREY[None]]),
        (GREY[None], [GREY[None]]),
        (GREY[:, :, None], [GREY[None]]),
        (RGB, [RGB.transpose(2, 0, 1)]),
        (RGB.transpose(2, 0, 1), [RGB.transpose(2, 0, 1)]),
        (np.stack([GREY[None]] * 2), [GREY[None]] * 2),
        ([GREY, np.stack([GREY[None]] * 2)], [GREY[None]] * 3),
        ((row for row in (GREY, RGB)), [GREY[None], RGB.transpose(2, 0, 1)]),
        (np.empty((0, 1, 5, 6), np.uint8), []),
    ],
    ids=["HW", "1HW", "HW1", "HWC", "CHW", "NCHW", "list", "generator", "none"],
)
def test_arrays_become_channels_first(array: np.ndarray, expected: list[np.ndarray]) -> None:
    """The axis of length 1 or 3 is the channels; an array of four axes is many images, anywhere."""
    found = list(read_images(array))

    assert len(found) == len(expected)
    assert all(map(np.array_equal, found, expected))


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (np.zeros((9, 5, 6), np.uint8), ValueError, "[9, 5, 6]: many grey images are [N, 1, H, W]"),
        (np.zeros((3, 9, 1), np.uint8), ValueError, "either axis could be the channels"),
        (np.zeros((2, 5, 6, 3), np.uint8), ValueError, "this one is [2, 5, 6, 3]"),
        (np.zeros(6, np.uint8), ValueError, "this one is [6]"),
        (GREY / 255, TypeError, "uint8, 0 to 255; this array is float64"),
        ([np.zeros((2, 1, 5, 6), np.uint8), GREY / 255], TypeError, "image 2: an image's pixels"),
        (io.StringIO("x"), TypeError, 'open(path, "rb")'),
        ([b"x", 5], TypeError, "image 1: an image is a path, bytes"),
        (5, TypeError, "or many of these; got int"),
        ([[b"x"]], TypeError, "got list"),
    ],
)
def test_what_is_no_image_is_refused(images: object, error: type[Exception], words: str) -> None:
    """Nothing is guessed; the message says what would be accepted."""
    with pytest.raises(error, match=re.escape(words)):
        list(read_images(images))


def test_chunks_hold_one_kind_in_order() -> None:
    """A chunk holds files only, or pixels of one shape only."""
    other = np.zeros((1, 7, 7), np.uint8)
    items: list[Item] = [b"a", b"b", GREY[None], GREY[None], other, b"c"]

    chunks = list(cut(items, Limits()))

    assert [len(chunk) for chunk in chunks] == [2, 2, 1, 1]
    assert [id(item) for chunk in chunks for item in chunk] == list(map(id, items))


def test_chunks_fit_a_request() -> None:
    """Files count as base64, pixels as they are; a file too large to share a request goes alone."""
    limits = Limits(body_bytes=5_000)
    files = [bytes(700)] * 20 + [bytes(4_900)] + [b""] * 3

    chunks = list(cut(files, limits))

    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 4, 4, 1, 3]
    for chunk in chunks[:5]:
        assert sum(len(base64.b64encode(file)) + 3 for file in chunk) < 5_000
    pixels = [np.zeros((1, 20, 20), np.uint8)] * 20
    assert [len(chunk) for chunk in cut(pixels, limits)] == [9, 9, 2]


@pytest.mark.parametrize(
    ("limits", "rows"),
    [
        (Limits(), ROWS),
        (Limits(rows=100), 100),
        (Limits(image_bytes=1 << 20), 16),  # 1 MiB each, of 16 MiB, whatever the files' size
        (Limits(image_bytes=1 << 20, body_bytes=64 << 20), 23),  # 1.33 MiB in base64, of 32 MiB
        (Limits(image_bytes=1 << 30), 1),
    ],
)
def test_chunks_have_as_many_rows_as_can_be_answered(limits: Limits, rows: int) -> None:
    """The published count, and what a body and a reply can hold, limit a chunk's rows."""
    assert len(next(cut([b"x"] * 5_000, limits))) == min(rows, FILES)
    assert limits.rows_of(8) == rows


def test_images_are_read_as_they_are_sent() -> None:
    """No more of an endless source is read than a request and one image."""
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x"

    chunks = cut(read_images(source()), Limits())
    for number in (1, 2, 3):
        next(chunks)
        assert taken == number * FILES + 1


def test_published_limits_are_read() -> None:
    """An endpoint's metadata are read in the contract's form, and in no other form."""
    limits = {"body_bytes": 1, "reply_bytes": 2, "images": 3, "image_pixels": 4}
    page = {"limits": limits, "image": {"channels": 3, "height": 4, "width": 5}}

    assert read_limits(page) == Limits(1, 2, 3, 60)
    for other in ({}, [], None, {"limits": {}, "image": {}}):
        with pytest.raises((LookupError, TypeError)):
            read_limits(other)


def test_file_over_the_limit_is_refused_unsent() -> None:
    """The refusal is the service's, without a request."""
    refusal = too_large(bytes(11), Limits(body_bytes=10))

    assert refusal is not None
    assert (refusal.status, refusal.type) == (413, "PayloadTooLarge")
    assert str(refusal) == "the file has 11 bytes; the limit is 10"
    assert too_large(bytes(10), Limits(body_bytes=10)) is None


def test_what_found_no_room_goes_again() -> None:
    """Images without room are sent again together, as long as some of them are answered."""
    asked = []

    def ask(chunk: list[Item]) -> list[int | BadRequest]:
        asked.append(len(chunk))
        room = iter(range(2))  # A request has room for two images, and never for a "big" one.
        full = BadRequest("pixels exceed the limit", 400, "PayloadTooLarge")
        return [full if item == b"big" or next(room, None) is None else 1 for item in chunk]

    answers = ask_in_rounds([b"a", b"b", b"big", b"c", b"d", b"e"], ask)

    assert [answer == 1 for answer in answers] == [True, True, False, True, True, True]
    assert asked == [6, 4, 2, 1]
