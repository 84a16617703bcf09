"""Canaries: requests whose right answers are known, made of a bundle's first golden image.

The launcher sends one to each endpoint again and again: a service is ready while they come back
with eager PyTorch's answers.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serve.bundle.images import PixelBudget, read_image, write_png
from serve.bundle.manifest import Bundle
from serve.wire.media import JSON, PNG


@dataclass(frozen=True)
class Canary:
    """A request whose answer is known.

    Attributes:
        body: what to POST.
        content_type: of the body.
        accept: the media type to ask for.
        is_golden: whether the body of a 200 holds the golden answer. Raises RequestError,
            ValueError, LookupError or TypeError for a body that can't be read at all.
    """

    body: bytes
    content_type: str
    accept: str
    is_golden: Callable[[bytes], bool]


def embed_canary(bundle: Bundle, precision: str) -> Canary:
    """Make the canary of embed: a golden image, whose right answer is its embedding."""
    golden, tolerance = bundle.golden(), bundle.manifest.tolerances[precision]

    def is_golden(body: bytes) -> bool:
        gap = np.abs(np.array(json.loads(body)["embedding"]) - golden.embeddings[0])
        return bool(gap.max() <= tolerance.embedding)

    return Canary(write_png(golden.images[0]), PNG, JSON, is_golden)


def reconstruct_canary(bundle: Bundle, precision: str) -> Canary:
    """Make the canary of reconstruct: a golden image, whose right answer is its reconstruction.

    A coarse precision moves the embedding, and with it the edges of the picture. So the check is of
    the average pixel: it must be within one grey level of the golden picture, or within half the
    distance from there to the nearest other golden picture.
    """
    golden = bundle.golden()
    levels = np.rint(golden.reconstructions * 255)
    distances = (float(np.abs(other - levels[0]).mean()) for other in levels[1:])
    nearest = min(distances, default=0.0)  # a model of very few images has a single golden image

    def is_golden(body: bytes) -> bool:
        return bool(gaps(body, levels[0], bundle).mean() <= max(1.0, nearest / 2))

    return Canary(write_png(golden.images[0]), PNG, PNG, is_golden)


def decode_canary(bundle: Bundle, precision: str) -> Canary:
    """Make the canary of decode: a golden embedding, whose right answer is its picture."""
    golden, tolerance = bundle.golden(), bundle.manifest.tolerances[precision]
    question = json.dumps({"embeddings": [golden.embeddings[0].tolist()]}).encode()
    levels = np.rint(golden.reconstructions[0] * 255)

    def is_golden(body: bytes) -> bool:
        most = 1 + 255 * tolerance.pixel  # 1: the service and this check may round differently
        return bool(gaps(body, levels, bundle).max() <= most)

    return Canary(question, JSON, PNG, is_golden)


def gaps(png: bytes, levels: NDArray[np.float32], bundle: Bundle) -> NDArray[np.float64]:
    """How far each pixel of a PNG is from the expected grey levels [C, H, W]."""
    as_it_is = replace(bundle.manifest.image, polarity="keep")
    pixels = read_image(png, as_it_is, PixelBudget())
    found: NDArray[np.float64] = np.abs(pixels.astype(np.float64) - levels)
    return found
