"""Photographs that nobody took: digits on paper and boards, drawn with a camera's faults.

MNIST's digits are drawn large and placed anywhere on a page: plain, ruled or squared paper with
pens of four colours, a blackboard, a scan. Light falls unevenly, lenses blur, sensors are noisy,
and the file is a JPEG. The same seed draws the same photographs.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

KINDS = ("plain", "ruled", "squared", "chalk", "scan")
PENS = ((25, 25, 28), (35, 45, 130), (130, 30, 40), (75, 75, 80))  # black, blue, red, pencil

Pixels = NDArray[np.float32]
Random = np.random.Generator


def photograph(digit: NDArray[np.uint8], kind: str, random: Random) -> bytes:
    """One JPEG of a digit, uint8[28, 28], on a page of one of KINDS."""
    height = int(random.uniform(60, 260))
    ink = enlarge(digit, height)
    ink = put_anywhere(ink, height, random)
    paper, pen = colours(kind, random)
    page = np.broadcast_to(paper, (*ink.shape, 3)).astype(np.float32)
    if kind in ("ruled", "squared"):
        page = with_lines(page, paper, height, kind == "squared", random)
    page = page * (1 - ink[..., None]) + pen * ink[..., None]
    if kind != "scan":
        page *= light(ink.shape, random)[..., None]
    return as_jpeg(page, random)


def large_photograph(
    digit: NDArray[np.uint8], size: tuple[int, int], random: Random
) -> Image.Image:
    """A digit, uint8[28, 28], on unevenly lit paper; ``size`` is (width, height) in pixels."""
    width, height = size
    ink = enlarge(digit, height // 2)
    page = np.full((height, width, 3), 225, np.float32)
    top, left = (height - ink.shape[0]) // 3, (width - ink.shape[1]) // 3
    page[top : top + ink.shape[0], left : left + ink.shape[1]] -= 180 * ink[..., None]
    page *= light((height, width), random)[..., None]
    page += random.normal(0, 4, (height, width, 1))  # about 2.8 MB as a JPEG of 12 megapixels
    return Image.fromarray(np.clip(page, 0, 255).astype(np.uint8))


def blank(kind: str, random: Random) -> bytes:
    """One JPEG of a page without ink."""
    faintest = np.zeros((28, 28), np.uint8)
    faintest[13:15, 13:15] = 30  # too faint to be drawn
    return photograph(faintest, kind, random)


def page_of_many(digits: NDArray[np.uint8], random: Random) -> bytes:
    """One JPEG of a scanned page with 3 to 20 of the digits, uint8[N, 28, 28]."""
    page = np.full((int(random.uniform(300, 800)), 600), 235, np.float32)
    for digit in digits[random.integers(0, len(digits), random.integers(3, 21))]:
        side = int(random.uniform(50, 120))
        top, left = random.integers(page.shape[0] - side), random.integers(page.shape[1] - side)
        ink = np.asarray(Image.fromarray(digit).resize((side, side)), np.float32)
        part = page[top : top + side, left : left + side]
        np.minimum(part, 235 - ink * (200 / 255), out=part)
    return as_jpeg(np.repeat(page[..., None], 3, axis=2), random)


def enlarge(digit: NDArray[np.uint8], height: int) -> Pixels:
    """The digit without its margins, ``height`` pixels high and with sharp edges: 0 to 1."""
    rows, columns = np.nonzero(digit > 20)
    drawn = digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = height / len(drawn)
    padded = Image.fromarray(np.pad(drawn, 2))
    size = max(4, int(padded.width * scale)), max(4, int(padded.height * scale))
    smooth = np.asarray(padded.resize(size, Image.Resampling.BICUBIC), np.float32) / 255
    return np.clip((smooth - 0.35) / 0.3, 0, 1)


def put_anywhere(ink: Pixels, height: int, random: Random) -> Pixels:
    """The ink somewhere on a page of any proportions."""
    width = int(ink.shape[1] + random.uniform(1.2, 5) * height)
    page = np.zeros((int(ink.shape[0] + random.uniform(0.3, 3) * height), width), np.float32)
    top, left = (
        int(random.uniform(0.05, 0.95) * (page.shape[axis] - ink.shape[axis])) for axis in (0, 1)
    )
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return page


def colours(kind: str, random: Random) -> tuple[Pixels, Pixels]:
    """Of the page and of the pen: float32[3] each."""
    if kind == "chalk":
        paper, pen = random.uniform(20, 60) + random.uniform(0, 14, 3), (225, 225, 215)
    elif kind == "scan":
        paper, pen = np.full(3, random.uniform(235, 255)), (20, 20, 25)
    else:
        paper = random.uniform(190, 250) + random.uniform(-14, 8, 3)
        pen = PENS[random.integers(len(PENS))]
    return paper.astype(np.float32), np.array(pen, np.float32)


def with_lines(page: Pixels, paper: Pixels, height: int, squared: bool, random: Random) -> Pixels:
    """The page with rulings, across and, if squared, down."""
    lined, step, width = page.copy(), int(random.uniform(0.25, 0.7) * height), max(1, height // 70)
    line = paper * np.array([0.78, 0.84, 0.93], np.float32)
    for start in range(random.integers(step), len(page), step):
        lined[start : start + width] = line
    for start in range(random.integers(step), page.shape[1] if squared else 0, step):
        lined[:, start : start + width] = line
    return lined


def light(shape: tuple[int, ...], random: Random) -> Pixels:
    """How brightly each place of the page is lit, about 1."""
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape) - 0.5
    slope_x, slope_y = random.uniform(-0.35, 0.35, 2)
    return (1 + slope_x * x + slope_y * y - random.uniform(0, 0.3) * (x * x + y * y)).astype("f4")


def as_jpeg(page: Pixels, random: Random) -> bytes:
    """A file of float32[H, W, 3], with noise and blur."""
    noisy = page + random.normal(0, random.uniform(1, 4), page.shape[:2])[..., None]
    picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.5)))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(random.uniform(45, 92)))
    return file.getvalue()
