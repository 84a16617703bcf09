"""How a picture is cut out of a file: ink found and centred, or the whole file taken."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from serve.bundle.errors import InvalidImage
from serve.bundle.framing import frame
from serve.bundle.ink import large_parts
from serve.bundle.manifest import ImageSpec

INK = ImageSpec(channels=1, height=28, width=28, polarity="auto", framing="ink")


def page(
    ink: int = 20, paper: int = 230, at: tuple[int, int] = (300, 90), noise: float = 2.0
) -> Image.Image:
    """A page of 480 x 360 with an L of 60 x 80 pixels on it, somewhere."""
    picture = Image.new("L", (480, 360), paper)
    draw, (x, y) = ImageDraw.Draw(picture), at
    draw.rectangle((x, y, x + 14, y + 79), fill=ink)
    draw.rectangle((x, y + 65, x + 59, y + 79), fill=ink)
    return with_noise(picture, noise)


def with_noise(picture: Image.Image, noise: float) -> Image.Image:
    """The picture as a camera would have it."""
    grain = np.random.default_rng(0).normal(0, noise, np.asarray(picture).shape)
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def lit(picture: Image.Image) -> Image.Image:
    """The picture lit from its upper left corner."""
    rows, columns = np.mgrid[: picture.height, : picture.width]
    light = 1 - 0.4 * rows / picture.height - 0.3 * columns / picture.width
    return Image.fromarray((np.asarray(picture) * light).astype(np.uint8))


def ruled(picture: Image.Image, squared: bool = False) -> Image.Image:
    """The picture on ruled or squared paper."""
    pixels = np.array(picture)
    for lines in (pixels[::24], pixels[:, ::24])[: 1 + squared]:
        lines[:] = np.minimum(lines, 185)
    return Image.fromarray(pixels)


def specked(picture: Image.Image) -> Image.Image:
    """The picture with dust on it."""
    pixels = np.array(picture)
    for row, column in ((20, 30), (340, 450), (200, 60)):
        pixels[row : row + 4, column : column + 4] = 20
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "picture",
    [
        page(),
        page(at=(5, 5)),
        page(at=(415, 275)),
        page(ink=210, paper=35),
        page(ink=120, paper=200),
        lit(page()),
        lit(page(ink=220, paper=50)),
        ruled(page()),
        ruled(lit(page()), squared=True),
        specked(page()),
        page().convert("RGB"),
        page().resize((1920, 1440)),
        page().resize((160, 120)),
        page().crop((295, 85, 365, 175)),
    ],
    ids=["plain", "corner", "other corner", "chalk", "pencil", "lit", "lit chalk", "ruled",
         "squared", "specks", "colour", "large", "small", "tight"],
)  # fmt: skip
def test_ink_is_found_wherever_it_is(picture: Image.Image) -> None:
    """The same drawing on any page becomes the same picture: 20 pixels high, mass centred."""
    pixels = frame(picture, INK).astype(float)

    rows, columns = np.flatnonzero(pixels.max(1) > 100), np.flatnonzero(pixels.max(0) > 100)
    assert rows[-1] - rows[0] + 1 == 20
    assert columns[-1] - columns[0] + 1 == pytest.approx(15, abs=1)
    middle = np.array([pixels.sum(1), pixels.sum(0)]) @ np.arange(28) / pixels.sum()
    assert middle == pytest.approx([14, 14], abs=0.6)
    assert pixels[rows[0] + 2 : rows[-1] - 8, columns[0] + 8 :].max() < 60  # the L's empty corner
    assert np.median(pixels[pixels > 100]) > 200


def test_large_parts_are_kept_whole() -> None:
    """Two arms that meet below are one part, corners join, and a speck beside them goes."""
    drawing = """
        ##......##..
        ##......##.#
        .##....##...
        ...####.....
    """
    mask = np.array([[cell == "#" for cell in row] for row in drawing.split()])
    speck = np.zeros_like(mask)
    speck[1, 11] = True

    assert np.array_equal(large_parts(np.kron(mask, np.ones((3, 3), bool))),
                          np.kron(mask & ~speck, np.ones((3, 3), bool)))  # fmt: skip


def test_thousands_of_parts_take_no_longer() -> None:
    """A picture of dots that touch only at their corners isn't searched pair by pair."""
    rows, columns = np.mgrid[:320, :320]
    dots = Image.fromarray(np.where((rows + columns) % 3 == 0, 0, 255).astype(np.uint8))
    start = time.process_time()

    frame(dots, INK)

    assert time.process_time() - start < 0.5  # it takes 0.04; comparing each pair took 20


@pytest.mark.parametrize(
    ("kind", "paper"),
    [*itertools.product(["even", "lit"], [245, 128, 10]), ("ruled", 245)],
)
def test_page_without_ink_is_refused(kind: str, paper: int) -> None:
    """Blank paper is said to be blank, whatever its shade, light and ruling."""
    blank = with_noise(Image.new("L", (400, 300), paper), 2.0)
    blank = {"even": blank, "lit": lit(blank), "ruled": ruled(blank)}[kind]

    with pytest.raises(InvalidImage, match="no ink found"):
        frame(blank, INK)


def test_uneven_ground_is_taken_whole() -> None:
    """A picture that is no page is seen as a whole, so that the anomaly score can judge it."""
    grain = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    scene = Image.fromarray(grain).resize((600, 400), Image.Resampling.BICUBIC)

    pixels = frame(scene, INK)

    assert np.array_equal(pixels, frame(scene, replace(INK, framing="pad")))


def test_what_goes_on_outside_is_taken_whole() -> None:
    """A dark shape that the picture's edge cuts off is part of something larger: no ink is cut out.

    A stroke that merely touches the edge is ink.
    """
    cut_off, touching = page(), page(at=(420, 90))
    ImageDraw.Draw(cut_off).ellipse((-80, 120, 200, 420), fill=20)

    assert np.array_equal(frame(cut_off, INK), frame(cut_off, replace(INK, framing="pad")))
    assert np.array_equal(frame(touching, INK)[4:24], frame(page(), INK)[4:24])


@pytest.mark.parametrize("size", [(29, 29), (29, 320), (1_000, 31)])
@pytest.mark.parametrize("framing", ["crop", "pad", "stretch"])
def test_odd_sizes(size: tuple[int, int], framing: str) -> None:
    """Rounding makes no box larger than the picture that it is cut from."""
    assert frame(Image.new("L", size), replace(INK, framing=framing)).shape == (28, 28)


def test_wishes_decide_which_ink_counts() -> None:
    """Of a light and a dark drawing on one page, keep takes the light, invert the dark drawing."""
    picture = page(ink=0, paper=128)
    ImageDraw.Draw(picture).ellipse((60, 200, 140, 280), fill=250)

    light, dark = (frame(picture, replace(INK, polarity=each)) for each in ("keep", "invert"))

    assert light[14, 14] > 200  # the disc's middle
    assert dark[6, 20] == 0  # the L's empty corner
    assert dark.max() > 200


@pytest.mark.parametrize(
    ("framing", "columns"),
    [("stretch", (0, 27)), ("pad", (7, 20)), ("crop", (0, 27))],
)
def test_whole_files_keep_their_place(framing: str, columns: tuple[int, int]) -> None:
    """A high file fills the square, or half of it, or loses its top and bottom."""
    pixels = np.full((112, 56), 100, np.uint8)
    pixels[:14], pixels[-14:] = 255, 255
    spec = ImageSpec(1, 28, 28, "keep", framing)

    found = frame(Image.fromarray(pixels), spec)

    assert found[14, columns[0]] == found[14, columns[1]] == 100
    assert (found[0, 14] < 110) == (framing == "crop")
    if framing == "pad":
        assert found[14, 6] == found[14, 21] > 100  # the ground: the mean of the edges


def test_own_size_is_not_framed() -> None:
    """A picture of the model's size passes, also where ink would be found elsewhere in it."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[2:6, 2:6] = 255

    assert np.array_equal(frame(Image.fromarray(pixels), INK), pixels)
    assert np.array_equal(frame(Image.fromarray(255 - pixels), INK), pixels)


def test_coloured_models_get_ink_in_three_channels() -> None:
    """A model of three channels gets the drawing in each of them."""
    pixels = frame(page(), replace(INK, channels=3))

    assert pixels.shape == (28, 28, 3)
    assert (pixels[..., 0] == pixels[..., 2]).all()
