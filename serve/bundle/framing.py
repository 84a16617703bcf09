"""How a picture is cut out of a file, and its polarity.

A model knows pictures as its dataset's makers cut them out. MNIST's makers scaled each digit to fit
20 of 28 pixels, its proportions kept, and put its centre of mass in the middle (LeCun et al. 1998).
``ink`` does the same with whatever stands out on an even ground: a digit anywhere on a page, on
paper or a board, lit unevenly. The other framings take the file as a whole.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.bundle.ink import find_ink
from serve.bundle.manifest import ImageSpec

INK_BOX = 20 / 28  # share of the model's side that the longer side of the ink is scaled to

Size = tuple[int, int]  # width and height


def frame(picture: Image.Image, spec: ImageSpec) -> NDArray[np.uint8]:
    """Cut the model's picture out of a file's.

    A picture that already has the model's size is not framed.

    Args:
        picture: upright, of mode ``L`` or ``RGB``.
        spec: what the model takes.

    Returns:
        ``uint8[H, W]`` for a grey model, ``uint8[H, W, 3]`` for a coloured one, of the model's
        polarity.

    Raises:
        InvalidImage: the framing is ``ink``, and there is none on an even ground.
    """
    mode, size = ("L" if spec.channels == 1 else "RGB"), (spec.width, spec.height)
    if picture.size == size:
        return with_polarity(np.asarray(picture.convert(mode)), spec.polarity)
    ink = find_ink(picture, spec.polarity) if spec.framing == "ink" else None
    if ink is not None:
        drawn = centre(ink, size)
        return drawn if mode == "L" else np.repeat(drawn[..., None], 3, axis=2)
    whole = WHOLE[spec.framing](picture.convert(mode), size)
    return with_polarity(np.asarray(whole), spec.polarity)


def with_polarity(pixels: NDArray[np.uint8], polarity: str) -> NDArray[np.uint8]:
    """Invert [H, W] or [H, W, 3] where the polarity asks for it."""
    inverts = polarity == "invert" or (polarity == "auto" and is_dark_on_light(pixels))
    return 255 - pixels if inverts else pixels


def is_dark_on_light(pixels: NDArray[np.uint8]) -> bool:
    """Whether the darkest pixel is further from the ground than the lightest pixel is.

    The ground is the median of the outermost pixels.
    """
    outermost = pixels.reshape(-1)[outermost_places(pixels.shape)]
    middle = len(outermost) // 2
    # On black, as most callers send it. numpy's own count lets go of Python's lock to count so few.
    if outermost.tobytes().count(0) > len(outermost) - middle:
        return False
    ground = int(np.partition(outermost, middle)[middle])
    return ground - int(pixels.min()) > int(pixels.max()) - ground


@lru_cache(maxsize=8)  # a process serves one model
def outermost_places(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Where the outermost pixels of a picture lie, all its pixels in a row."""
    inner = np.zeros(shape, bool)
    inner[1:-1, 1:-1] = True
    return np.flatnonzero(~inner)


def stretch(picture: Image.Image, size: Size) -> Image.Image:
    """The whole picture, its proportions lost."""
    return picture.resize(size, Image.Resampling.BICUBIC)  # Pillow antialiases


def crop(picture: Image.Image, size: Size) -> Image.Image:
    """The largest middle part that has the model's proportions."""
    scale = min(picture.width / size[0], picture.height / size[1])
    # Rounding may make a side a little longer than the picture's.
    width, height = min(picture.width, size[0] * scale), min(picture.height, size[1] * scale)
    left, top = (picture.width - width) / 2, (picture.height - height) / 2
    box = (left, top, left + width, top + height)
    return picture.resize(size, Image.Resampling.BICUBIC, box)


def pad(picture: Image.Image, size: Size) -> Image.Image:
    """The whole picture, its proportions kept, on the mean colour of its outermost pixels."""
    scale = min(size[0] / picture.width, size[1] / picture.height)
    inner = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = picture.resize(inner, Image.Resampling.BICUBIC)
    pixels = np.asarray(small)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    page = np.empty((size[1], size[0], *pixels.shape[2:]), np.uint8)
    page[:] = np.rint(edges.mean(axis=0)).astype(np.uint8)
    top, left = (size[1] - inner[1]) // 2, (size[0] - inner[0]) // 2
    page[top : top + inner[1], left : left + inner[0]] = pixels
    return Image.fromarray(page)


# framing → how the whole file is taken; ``ink`` takes it whole where the ground isn't even.
WHOLE = {"stretch": stretch, "crop": crop, "pad": pad, "ink": pad}


def centre(ink: NDArray[np.float32], size: Size) -> NDArray[np.uint8]:
    """Scale ink to the model's box, and put its centre of mass in the middle.

    Args:
        ink: float32[h, w], 0 to 1, with ink in every outermost row and column.
        size: of the model's pictures.

    Returns:
        uint8[H, W], light ink on black.
    """
    drawing = Image.fromarray((ink * 255).astype(np.uint8))
    scale = INK_BOX * min(size) / max(drawing.size)
    inner = max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale))
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    small = np.asarray(drawing.resize(inner, method))
    page = np.zeros((size[1], size[0]), np.uint8)
    rows, columns = (place(small.sum(1 - axis), page.shape[axis]) for axis in (0, 1))
    page[rows, columns] = small
    return page


def place(mass: NDArray[np.uint64], side: int) -> slice:
    """Where a row (or column) of masses goes so that its centre lies in the middle of a side.

    MNIST's centres of mass lie at 14.0 of 28, counted from the middle of the first pixel.
    """
    middle = float(mass @ np.arange(len(mass))) / max(1.0, float(mass.sum()))
    start = min(max(0, round(side / 2 - middle)), side - len(mass))
    return slice(start, start + len(mass))
