"""The most unusual images as pictures: original, as seen, remembered, and the difference."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pinhole.atlas.model import Model
from pinhole.atlas.pictures import Originals, Readable, seen_of, small, to_picture, whole_of
from pinhole.atlas.result import vectors
from pinhole.report.sections import DIFFERENCE
from serve.bundle.manifest import ImageSpec

ORIGINAL_PX = 192
ENLARGED_PX = 200  # Smaller pictures are enlarged to about this: browsers would blur them.

# Colours of what is only in the reconstruction, and of what is only in the image; both can be seen
# on light and on dark ground.
ADDED, MISSED = (230, 85, 13), (49, 130, 206)


def pictures_of(
    rows: Any, originals: Originals, model: Model | None, image: ImageSpec | None
) -> dict[int, dict[str, bytes]]:
    """The pictures of some rows: row → caption → image file.

    Args:
        rows: a pyarrow.Table, in any order.
        originals: the result's images.
        model: that embedded the result; None leaves out what it remembers.
        image: the pictures that the model takes; None leaves out what it saw.
    """
    ordered = rows.sort_by("row")
    remembered = model.decode(vectors(ordered)) if model else [None] * len(ordered)
    columns = zip(ordered["row"].to_pylist(), originals.contents(ordered), remembered, strict=True)
    return {row: strip(content, pixels, image) for row, content, pixels in columns}


def strip(
    content: Readable | None, remembered: NDArray[np.uint8] | None, image: ImageSpec | None
) -> dict[str, bytes]:
    """The pictures of one image: caption → file."""
    found: dict[str, bytes] = {}
    seen = None if content is None else seen_of(content, image)
    whole = None if content is None else whole_of(content, ORIGINAL_PX)
    if whole:
        large = max(whole.size) > ENLARGED_PX // 2
        found["original"] = small(whole, ORIGINAL_PX) if large else to_png(whole)
    if seen is not None:
        found["as seen"] = to_png(to_picture(seen))
    if remembered is not None:
        found["remembered"] = to_png(to_picture(remembered))
    if seen is not None and remembered is not None and seen.shape == remembered.shape:
        found[DIFFERENCE] = to_png(difference(seen, remembered))
    return found


def difference(seen: NDArray[np.uint8], remembered: NDArray[np.uint8]) -> Image.Image:
    """Where two pictures differ: a colour for each sign, the more opaque the greater it is."""
    signed = remembered.astype(np.int16).mean(0) - seen.astype(np.int16).mean(0)
    colours = np.where(signed[..., None] > 0, ADDED, MISSED)
    layers = np.concatenate((colours, np.abs(signed)[..., None]), axis=2)
    return Image.fromarray(layers.round().astype(np.uint8), "RGBA")


def to_png(picture: Image.Image) -> bytes:
    """A picture as PNG, enlarged by a whole factor if it is small."""
    factor = max(1, ENLARGED_PX // max(picture.size))
    size = picture.width * factor, picture.height * factor
    larger = picture.resize(size, Image.Resampling.NEAREST)
    file = io.BytesIO()
    larger.save(file, "PNG")
    return file.getvalue()
