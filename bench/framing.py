"""How well digits are recognised from photographs, and what framing costs.

    python -m bench.framing build/mnist            # or: make bench-framing

Every file goes through ``serve.bundle.images``, as a request's would. A digit counts as recognised
if its label is the most frequent of its ten nearest neighbours on the bundle's map, itself left
out. The share is that of the same digits as 28 x 28 files, in the same run.
"""

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.photographs import KINDS, Random, blank, photograph
from serve.bundle.engine.opening import open_engine
from serve.bundle.engine.protocol import Engine
from serve.bundle.errors import InvalidImage
from serve.bundle.images import PixelBudget, read_image, write_png
from serve.bundle.manifest import Bundle, ImageSpec, load_bundle
from train.data import load_dataset

NEIGHBOURS = 10
BLANKS = 100  # pages without ink, of each kind

Pixels = NDArray[np.uint8]


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="of an MNIST model")
    parser.add_argument("--count", type=int, default=1_000, help="digits (default: 1,000)")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    engine, spec = open_engine(bundle), bundle.manifest.image
    digits = load_dataset("mnist", Path(os.environ.get("PINHOLE_DATA", "data")))
    chosen = np.random.default_rng(0).permutation(len(digits.test_images))[: options.count]
    images, labels = digits.test_images.numpy()[chosen, 0], digits.test_labels.numpy()[chosen]
    print(
        "| files | recognised | share of 28 × 28 | without ink | ms a file |\n|---|---|---|---|---|"
    )
    own = 0.0
    for name, files in sources(images):
        pixels, refused, milliseconds = read_all(files, spec)
        right = recognised(bundle, engine, pixels, chosen) == labels
        own = own or right.mean()
        share = f"{right.mean():.3f} | {right.mean() / own:.3f}"
        print(f"| {name} | {share} | {refused} | {milliseconds:.2f} |", flush=True)
    print(f"\nblank pages refused: {blank_pages_refused(spec)} of {BLANKS * len(KINDS)}")
    return 0


def sources(images: Pixels) -> Iterator[tuple[str, Iterator[bytes]]]:
    """(name, files) of every kind of file, of the same digits."""
    yield "28 × 28", (write_png(image[None]) for image in images)
    for kind in KINDS:
        yield kind, drawn(images, lambda image, random, kind=kind: photograph(image, kind, random))
    yield "scaled 0.6 to 1.2, shifted ±3", drawn(images, scaled_and_shifted)


def drawn(images: Pixels, draw: Callable[[Pixels, Random], bytes]) -> Iterator[bytes]:
    """A file of each image, always the same ones."""
    random = np.random.default_rng(1)
    return (draw(image, random) for image in images)


def scaled_and_shifted(image: Pixels, random: Random) -> bytes:
    """A PNG of four times MNIST's size, the digit scaled and moved."""
    side = int(112 * random.uniform(0.6, 1.2))
    page = Image.new("L", (160, 160))
    left, top = ((160 - side) // 2 + 4 * int(random.integers(-3, 4)) for _ in range(2))
    page.paste(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), (left, top))
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def read_all(files: Iterator[bytes], spec: ImageSpec) -> tuple[Pixels, int, float]:
    """uint8[N, C, H, W], black where no ink was found; how many those are; ms of CPU a file."""
    found, refused, spent_s = [], 0, 0.0
    for file in files:
        started = time.process_time()
        try:
            found.append(read_image(file, spec, PixelBudget()))
        except InvalidImage:
            refused += 1
            found.append(np.zeros(spec.shape, np.uint8))
        spent_s += time.process_time() - started
    return np.stack(found), refused, 1_000 * spent_s / len(found)


def recognised(bundle: Bundle, engine: Engine, pixels: Pixels, own: NDArray[np.int64]) -> Pixels:
    """The label that each image's neighbours on the map vote for."""
    with np.load(bundle.folder / "map.npz") as arrays:
        embeddings, labels = arrays["embeddings"], arrays["labels"]
    votes = []
    for place, vector in zip(own, engine.embed(pixels), strict=True):
        distances = np.square(embeddings - vector).sum(1)
        distances[place] = np.inf
        nearest = np.argpartition(distances, NEIGHBOURS)[:NEIGHBOURS]
        votes.append(np.bincount(labels[nearest]).argmax())
    return np.array(votes)


def blank_pages_refused(spec: ImageSpec) -> int:
    """How many pages without ink are said to have none."""
    random = np.random.default_rng(2)
    files = (blank(kind, random) for kind in KINDS for _ in range(BLANKS))
    return read_all(files, spec)[1]


if __name__ == "__main__":
    sys.exit(main())
