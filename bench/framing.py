"""How well digits are recognised from photographs, and what reading a file costs.

    python -m bench.framing build/mnist            # or: make bench-framing

Every file goes through ``serve.bundle.images``, as a request's would. A digit counts as recognised
if its label is the most frequent of its ten nearest neighbours on the bundle's map, itself left
out. The share is of the same digits as 28 x 28 files, in the same run. *Stretched* is the same file
stretched to the model's size, as it was before there was framing.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from bench.photographs import KINDS, Random, blank, photograph
from bench.reading import print_reading
from bench.tables import processor
from serve.bundle.engine.host import usable_cores
from serve.bundle.engine.opening import open_engine
from serve.bundle.engine.protocol import Engine
from serve.bundle.errors import InvalidImage
from serve.bundle.images import PixelBudget, read_image, write_png
from serve.bundle.manifest import Bundle, ImageSpec, load_bundle
from train.data import data_folder, load_dataset

NEIGHBOURS = 10
BLANKS = 100  # pages without ink, of each kind

Pixels = NDArray[np.uint8]
Kind = tuple[str, Sequence[bytes]]  # name and files


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="of an MNIST model")
    parser.add_argument("--count", type=int, default=1_000, help="digits (default: 1,000)")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    engine, spec = open_engine(bundle), bundle.manifest.image
    mnist = load_dataset("mnist", data_folder())
    chosen = np.random.default_rng(0).permutation(len(mnist.test_images))[: options.count]
    images, labels = mnist.test_images.numpy()[chosen, 0], mnist.test_labels.numpy()[chosen]
    print(f"{usable_cores()} cores of {processor()}\n")
    print("| files | stretched | framed | share of 28 × 28 | without ink | ms a file |")
    print("|---|---|---|---|---|---|")
    print_shares(bundle, engine, labels, mnist_kinds(images), chosen)
    small = load_dataset("digits", Path())
    kinds = small_kinds(small.train_images.numpy())
    print_shares(bundle, engine, small.train_labels.numpy(), kinds)
    print(f"\nblank pages refused: {blank_pages_refused(spec)} of {BLANKS * len(KINDS)}")
    print_reading(images[0], spec)
    return 0


def print_shares(
    bundle: Bundle,
    engine: Engine,
    labels: NDArray[np.int64],
    kinds: Iterator[Kind],
    places: Sequence[int] | None = None,
) -> None:
    """Print a row for each kind of file; the first kind is the one that the others are compared to.

    Args:
        bundle: has the map.
        engine: embeds.
        labels: of the digits, of which each kind has a file each.
        kinds: see Kind.
        places: of the digits themselves on the map; None if they aren't on it.
    """
    spec, best = bundle.manifest.image, 0.0
    for name, files in kinds:
        stretched, _, _ = read_all(files, replace(spec, framing="stretch"))
        framed, refused, ms = read_all(files, spec)
        before, after = (
            (recognised(bundle, engine, pixels, places) == labels).mean()
            for pixels in (stretched, framed)
        )
        best = best or after
        print(
            f"| {name} | {before:.3f} | {after:.3f} | {after / best:.3f} | {refused} | {ms:.2f} |",
            flush=True,
        )


def mnist_kinds(images: Pixels) -> Iterator[Kind]:
    """Files of MNIST's digits, uint8[N, 28, 28]."""
    yield "28 × 28", [write_png(image[None]) for image in images]
    for kind in KINDS:
        yield kind, drawn(images, lambda image, random, kind=kind: photograph(image, kind, random))
    yield "scaled 0.6 to 1.2, shifted ±3", drawn(images, scaled_and_shifted)


def small_kinds(images: Pixels) -> Iterator[Kind]:
    """Files of scikit-learn's digits: at MNIST's scale, and the 8 x 8 pictures ten times as large.

    Args:
        images: uint8[N, 1, 28, 28], as training has them.
    """
    yield "scikit-learn's, 28 × 28", [write_png(image) for image in images]
    originals = load_digits().images
    is_test = np.arange(len(originals)) % 5 == 4  # see train.digits
    pixels = (originals[~is_test] * (255 / 16)).astype(np.uint8)
    yield "scikit-learn's, 80 × 80", [enlarged(each) for each in pixels]
    yield "the same with a margin of 20", [enlarged(np.pad(each, 2)) for each in pixels]


def enlarged(image: Pixels) -> bytes:
    """A PNG of ten times the size."""
    side = 10 * len(image)
    large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    return write_png(np.asarray(large)[None])


def drawn(images: Pixels, draw: Callable[[Pixels, Random], bytes]) -> list[bytes]:
    """A file of each image, always the same ones."""
    random = np.random.default_rng(1)
    return [draw(image, random) for image in images]


def scaled_and_shifted(image: Pixels, random: Random) -> bytes:
    """A PNG of four times MNIST's size, the digit scaled and moved."""
    side = int(112 * random.uniform(0.6, 1.2))
    page = Image.new("L", (160, 160))
    left, top = ((160 - side) // 2 + 4 * int(random.integers(-3, 4)) for _ in range(2))
    page.paste(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), (left, top))
    return write_png(np.asarray(page)[None])


def read_all(files: Iterable[bytes], spec: ImageSpec) -> tuple[Pixels, int, float]:
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


def recognised(
    bundle: Bundle, engine: Engine, pixels: Pixels, places: Sequence[int] | None
) -> NDArray[np.int64]:
    """The label that each image's neighbours on the map vote for; see print_shares."""
    with np.load(bundle.folder / "map.npz") as arrays:
        embeddings, labels = arrays["embeddings"], arrays["labels"]
    votes = []
    for i, vector in enumerate(engine.embed(pixels)):
        distances = np.square(embeddings - vector).sum(1)
        if places is not None:
            distances[places[i]] = np.inf
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
