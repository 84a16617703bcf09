"""Image files to model pixels."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from serve.bundle import images
from serve.bundle.errors import InvalidImage, PayloadTooLarge
from serve.bundle.images import PixelBudget, read_image, read_plain_png, write_grid, write_png
from serve.bundle.manifest import ImageSpec

GREY = ImageSpec(channels=1, height=28, width=28, polarity="auto", framing="ink")
RGB = ImageSpec(channels=3, height=32, width=32, polarity="keep", framing="pad")
START = 41  # where the compressed pixels of a plain PNG begin
WHOLE = replace(GREY, polarity="keep", framing="stretch")


def file_of(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def stroke(ink: int, paper: int, size: int = 56) -> Image.Image:
    """A vertical stroke on paper."""
    picture = Image.new("L", (size, size), paper)
    picture.paste(ink, (size // 2 - 4, size // 4, size // 2 + 4, 3 * size // 4))
    return picture


@pytest.mark.parametrize("spec", [GREY, RGB])
def test_plain_png_takes_the_short_way(spec: ImageSpec) -> None:
    """A PNG of the model's own size and mode is read to Pillow's pixels, whatever its filters."""
    for seed in range(20):
        pixels = gradients(spec, seed)
        for level in (0, 1, 9):
            file = file_of(as_picture(pixels), compress_level=level)

            found = read_plain_png(file, spec)

            assert found is not None
            assert np.array_equal(found, channels_last(pixels))
            assert same(read_or_refuse(file, spec), read_by_pillow(file, spec))


@pytest.mark.parametrize("spec", [GREY, RGB])
def test_damaged_png_is_what_pillow_makes_of_it(spec: ImageSpec) -> None:
    """A PNG with any byte changed or its end missing is read, or refused, as Pillow does it."""
    whole = file_of(as_picture(gradients(spec, 0)))

    for at in range(len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        for file in (whole[: at + 1], changed):
            assert same(read_or_refuse(file, spec), read_by_pillow(file, spec))


@pytest.mark.parametrize("spec", [GREY, RGB])
def test_damaged_pixels_under_a_right_checksum(spec: ImageSpec) -> None:
    """A PNG whose compressed pixels were damaged before its chunk's checksum was taken, alike."""
    whole = file_of(as_picture(gradients(spec, 0)))
    (length,) = struct.unpack_from(">I", whole, START - 8)
    packed = whole[START : START + length]

    for at in range(length):
        changed = packed[:at] + bytes([packed[at] ^ 0x55]) + packed[at + 1 :]
        for pixels in (packed[:at], changed):
            chunk = b"IDAT" + pixels
            checksum = struct.pack(">I", zlib.crc32(chunk))
            end = whole[START + length + 4 :]
            file = whole[: START - 8] + struct.pack(">I", len(pixels)) + chunk + checksum + end
            assert same(read_or_refuse(file, spec), read_by_pillow(file, spec))


@pytest.mark.parametrize("meaning", ["transparency", "exif"])
def test_png_that_says_more_takes_the_long_way(meaning: str) -> None:
    """A PNG with transparency or orientation is left to Pillow, which applies them."""
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    options = {"transparency": 0} if meaning == "transparency" else {"exif": exif}

    assert read_plain_png(file_of(Image.new("L", (28, 28)), **options), GREY) is None


def gradients(spec: ImageSpec, seed: int) -> np.ndarray:
    """uint8[C, H, W] for which a PNG writer takes more than one filter."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: spec.height, : spec.width]
    slopes = random.integers(-9, 10, (spec.channels, 3, 1, 1))
    noise = random.integers(0, 1 + 40 * (seed % 3), spec.shape)
    return (slopes[:, 0] * rows + slopes[:, 1] * columns + noise).astype(np.uint8)


def as_picture(pixels: np.ndarray) -> Image.Image:
    """uint8[C, H, W] as Pillow holds it."""
    return Image.fromarray(channels_last(pixels).copy())


def channels_last(pixels: np.ndarray) -> np.ndarray:
    """uint8[C, H, W] → uint8[H, W] or uint8[H, W, 3]."""
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def read_by_pillow(file: bytes, spec: ImageSpec) -> np.ndarray | None:
    """Read a file the long way; None where it is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "read_plain_png", lambda data, spec: None)
        return read_or_refuse(file, spec)


def read_or_refuse(file: bytes, spec: ImageSpec) -> np.ndarray | None:
    """Read a file; None where it is refused."""
    try:
        return read_image(file, spec, PixelBudget())
    except (InvalidImage, PayloadTooLarge):
        return None


def same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether both were read, to the same pixels, or both refused."""
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def test_own_size_passes_bit_for_bit() -> None:
    """A 28×28 grey file of light ink on dark comes back as it is, touching its edges or not."""
    pixels = np.zeros((1, 28, 28), np.uint8)
    pixels[0, 3:28, 2:9] = np.random.default_rng(0).integers(1, 256, (25, 7))

    assert np.array_equal(read_image(write_png(pixels), GREY, PixelBudget()), pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "1"])
@pytest.mark.parametrize("size", [28, 29, 280])
def test_polarity_is_decided_alike(mode: str, size: int) -> None:
    """One dark drawing on light paper becomes light on dark in any mode and of any size."""
    drawing = stroke(0, 255, size).convert(mode)

    pixels = read_image(file_of(drawing), GREY, PixelBudget())

    assert pixels[0, 14, 14] > 200
    assert pixels[0, :, 0].max() == pixels[0, :, -1].max() == 0


def test_dark_ink_on_light_paper_is_inverted() -> None:
    """A scan and its negative become the same pixels, ink high."""
    scan = read_image(file_of(stroke(ink=0, paper=255)), GREY, PixelBudget())
    negative = read_image(file_of(stroke(ink=255, paper=0)), GREY, PixelBudget())

    assert np.array_equal(scan, negative)
    assert scan[0, 14, 14] > 200
    assert scan[0, 0, 0] == 0


def test_keep_does_not_invert() -> None:
    """A model with polarity keep, such as of photographs, gets files as they are."""
    assert read_image(file_of(stroke(ink=0, paper=255)), WHOLE, PixelBudget())[0, 0, 0] == 255


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_shows_the_same_stroke(mode: str) -> None:
    """Whatever the file's colours, the stroke is where it was and the paper is black."""
    picture = stroke(ink=0, paper=255)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)

    pixels = read_image(file_of(picture, "TIFF"), GREY, PixelBudget())

    assert pixels.shape == (1, 28, 28)
    assert pixels[0, 14, 14] > 200
    assert pixels[0, 0, 0] == 0


def test_transparency_is_white_paper() -> None:
    """Black strokes on nothing read like black strokes on white."""
    picture = Image.new("RGBA", (56, 56), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (24, 14, 32, 42))

    pixels = read_image(file_of(picture), GREY, PixelBudget())

    assert pixels[0, 14, 14] > 200
    assert pixels[0, 0, 0] == 0


def test_exif_orientation_is_applied() -> None:
    """A photograph taken sideways is turned upright."""
    picture = Image.new("L", (56, 56), 0)
    picture.paste(255, (0, 0, 56, 28))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180°

    pixels = read_image(file_of(picture, "JPEG", exif=exif), WHOLE, PixelBudget())

    assert pixels[0, -5:].mean() > 200 > 50 > pixels[0, :5].mean()


def test_colour_models_get_three_channels() -> None:
    """A grey file becomes RGB for an RGB model."""
    assert read_image(file_of(stroke(0, 255)), RGB, PixelBudget()).shape == (3, 32, 32)


@pytest.mark.parametrize(
    "data",
    [
        b"not an image",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
    ids=["garbage", "PostScript"],
)
def test_unreadable_files_are_refused(data: bytes) -> None:
    """The message says how many bytes came and which formats are read."""
    with pytest.raises(InvalidImage, match=rf"{len(data)} bytes .* PNG, JPEG"):
        read_image(data, GREY, PixelBudget())


def test_empty_file_is_refused() -> None:
    """An empty file is refused with a message of its own."""
    with pytest.raises(InvalidImage, match="empty"):
        read_image(b"", GREY, PixelBudget())


def test_bomb_is_refused_by_its_header() -> None:
    """A small file that claims too many pixels is not unpacked."""
    bomb = file_of(Image.new("1", (10_001, 5_000)))

    with pytest.raises(InvalidImage, match="10001 x 5000 pixels; the limit is 50,000,000"):
        read_image(bomb, GREY, PixelBudget())


def test_request_has_a_budget_of_pixels() -> None:
    """Files that are fine one by one are refused once their sum is over the limit."""
    budget = PixelBudget()
    large = file_of(Image.new("1", (10_000, 5_000)))

    for _ in range(4):
        budget.spend(10_000, 5_000)
    with pytest.raises(PayloadTooLarge, match="limit of 200,000,000 a request"):
        read_image(large, GREY, budget)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_deep_greys_are_refused(mode: str) -> None:
    """32-bit greys are refused: they have no agreed white, and a guess could embed wrongly."""
    with pytest.raises(InvalidImage, match="32 bits"):
        read_image(file_of(Image.new(mode, (56, 56)), "TIFF"), GREY, PixelBudget())


def test_grid_keeps_every_image_in_place() -> None:
    """Five images make three columns and two rows, the last cell black."""
    images = np.stack([np.full((1, 4, 4), 50 * n, np.uint8) for n in range(1, 6)])

    with Image.open(io.BytesIO(write_grid(images))) as picture:
        grid = np.asarray(picture)

    assert grid.shape == (8, 12)
    assert grid[::4, ::4].tolist() == [[50, 100, 150], [200, 250, 0]]
