"""How well the anomaly score tells MNIST's test digits from anything else.

    python -m bench.anomaly weights/mnist

Every image goes through ``serve.service``, as a request would, and the mse, percentile and outlier
flag of the reply are judged. Each kind of image has as many as there are digits, or all it has. An
AUROC is the chance that an image of that kind scores higher than a digit. Prints a table in
Markdown; ``--page`` puts the table into a page and ``--picture`` draws it.
"""

import argparse
import base64
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from bench.photographs import KINDS, page_of_many, photograph
from export.__main__ import export
from serve.bundle.engine.opening import open_engine
from serve.bundle.errors import InvalidImage
from serve.bundle.images import PixelBudget, read_image
from serve.bundle.manifest import Bundle, Calibration, ImageSpec, load_bundle
from serve.bundle.score import OUTLIER_PERCENTILE, is_outside, percentile, relative_errors
from serve.service import Service
from serve.wire.media import NPY
from serve.wire.message import Message
from serve.wire.npy import read_npy, write_npy
from train.card import embedding_range
from train.data import add_data_dir, load_dataset
from train.mnist import import_torchvision_datasets

CLAIMED = 0.95  # least AUROC that is claimed for every kind which is nothing like a digit
PAGES = 1_000  # drawn pages, and drawn photographs
REQUEST = 1_000  # images in one request, well under serve.bundle.limits.MAX_IMAGES
EXAMPLES = 12  # images of each kind that the picture shows
BINS = np.geomspace(2e-3, 1, 121)  # edges of the histogram of relative errors
EDGES = ("<!-- table: bench.anomaly -->", "<!-- end of table -->")  # comments around the table
INK, GHOST = "#30343b", "#d5d9df"
DIGITS, FAR, NEAR = "#3b73af", "#d9822b", "#8a6bb1"

# name → torchvision's class, its further arguments, and the group. O, l, S and Z are near digits.
SIBLINGS: dict[str, tuple[str, dict[str, str], str]] = {
    "Fashion-MNIST": ("FashionMNIST", {}, "far"),
    "KMNIST": ("KMNIST", {}, "far"),
    "EMNIST letters": ("EMNIST", {"split": "letters"}, "near"),
}

Images = NDArray[np.uint8]  # [N, 1, 28, 28]


@dataclass(frozen=True)
class Scored:
    """Images of one kind and what the service replied: arrays of length N, and some examples.

    Attributes:
        name: of the kind.
        group: ``digits``, ``far`` (nothing like a digit) or ``near`` (looks like one).
        mse: reconstruction error.
        relative: relative error; see serve.bundle.score.
        percentile: as served, with one decimal.
        outlier: as served.
        embeddings: float32[N, D].
        examples: (image, reconstruction), EXAMPLES of them, uint8[28, 28] each.
    """

    name: str
    group: str
    mse: NDArray[np.float64]
    relative: NDArray[np.float32]
    percentile: NDArray[np.float64]
    outlier: NDArray[np.bool_]
    embeddings: NDArray[np.float32]
    examples: list[tuple[Images, Images]]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 1 where a kind misses the claim."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        bundle = open_bundle(options.model, Path(folder) / "bundle")
        digits, *others = score_all(bundle, options.data_dir, options.count)
    text = table(digits, others)
    print(text)
    if options.page:
        replace_table(options.page, text)
    if options.picture:
        calibration = bundle.manifest.calibration
        draw(digits, others, calibration).savefig(options.picture)
    return 1 if any(auroc(digits.relative, kind.relative) < CLAIMED for kind in far(others)) else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.anomaly",
        description="How well the anomaly score tells MNIST's test digits from anything else.",
        epilog="example: python -m bench.anomaly weights/mnist "
        "--page docs/anomaly.md --picture docs/pictures/anomaly.png",
    )
    parser.add_argument(
        "model",
        type=Path,
        nargs="?",
        default=Path("weights/mnist"),
        help="a checkpoint, which is exported, or a bundle (default: weights/mnist)",
    )
    add_data_dir(parser, "folder of MNIST, and of its siblings if any")
    parser.add_argument(
        "--count", type=int, default=10_000, help="images of each kind (default: 10000)"
    )
    parser.add_argument("--page", type=Path, help="put the table into this page, between its marks")
    parser.add_argument("--picture", type=Path, help="draw the distributions into this PNG")
    return parser.parse_args(arguments)


def open_bundle(model: Path, out: Path) -> Bundle:
    """Load ``model`` if it is a bundle, or export it if it is a checkpoint."""
    if (model / "manifest.json").is_file():
        return load_bundle(model)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the table
        return export(model, out, "1.0")


def score_all(bundle: Bundle, data_dir: Path, count: int) -> Iterator[Scored]:
    """Score the digits first, then every other kind."""
    service = Service(bundle, open_engine(bundle))
    for name, group, images in kinds(data_dir, bundle.manifest.image, count):
        print(f"{len(images):>6,} × {name}", file=sys.stderr, flush=True)
        yield score(service, name, group, np.ascontiguousarray(images))


def kinds(data_dir: Path, spec: ImageSpec, count: int) -> Iterator[tuple[str, str, Images]]:
    """(name, group, images) of every kind, at most ``count`` images each."""
    random = np.random.default_rng(0)
    digits = load_dataset("mnist", data_dir).test_images.numpy()
    digits = digits[random.permutation(len(digits))[:count]]  # MNIST's first half is neater
    yield "test digits", "digits", digits
    yield from siblings(data_dir, count)
    yield "digits, inverted", "far", 255 - digits
    yield "noise, uniform", "far", random.integers(0, 256, digits.shape, np.uint8)
    yield "digits, pixels shuffled", "far", shuffled(digits, random)
    crops = list(photograph_crops(len(digits), random))
    kept = replace(spec, polarity="keep", framing="stretch")
    yield "patches of photographs", "far", np.stack([read(crop, kept) for crop in crops])
    yield "the same as files", "far", np.concatenate([*framed(crops, spec)])
    pages = (page_of_many(digits[:, 0], random) for _ in range(min(count, PAGES)))
    yield "pages of many digits", "far", np.concatenate([*framed(pages, spec)])
    greys = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    yield "one grey all over", "far", np.broadcast_to(greys, (256, 1, 28, 28))
    yield "digits, quarter turn", "near", np.rot90(digits, axes=(2, 3))
    yield "digits, upside down", "near", np.rot90(digits, 2, axes=(2, 3))
    yield "digits, mirrored", "near", digits[..., ::-1]
    yield "digits, faint", "near", digits // 5 * 2
    drawn = (
        photograph(image[0], KINDS[i % len(KINDS)], random)
        for i, image in enumerate(digits[:PAGES])
    )
    yield "photographs of digits", "near", np.concatenate([*framed(drawn, spec)])
    yield "scikit-learn's digits", "near", load_dataset("digits", data_dir).train_images.numpy()


def siblings(data_dir: Path, count: int) -> Iterator[tuple[str, str, Images]]:
    """The test images of those of MNIST's siblings that are there; nothing is downloaded."""
    datasets = import_torchvision_datasets()
    for name, (class_name, extra, group) in SIBLINGS.items():
        try:
            found = getattr(datasets, class_name)(str(data_dir), train=False, **extra)
        except RuntimeError:  # what torchvision raises where files are missing
            print(f"no {name} in {data_dir}: left out", file=sys.stderr)
            continue
        images = found.data[:count, None].numpy()
        turned = images.swapaxes(2, 3) if class_name == "EMNIST" else images  # on their side
        yield name, group, turned


def shuffled(images: Images, random: np.random.Generator) -> Images:
    """Each image's own pixels in random order: noise as dark as a digit."""
    return random.permuted(images.reshape(len(images), -1), axis=1).reshape(images.shape)


def photograph_crops(count: int, random: np.random.Generator) -> Iterator[bytes]:
    """PNG files: squares cut from scikit-learn's two photographs, 28 pixels to the largest."""
    photographs = load_sample_images().images
    for number in range(count):
        pixels = photographs[number % len(photographs)]
        height, width = pixels.shape[:2]
        side = round(28 * (min(height, width) / 28) ** random.random())  # log-uniform
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        file = io.BytesIO()
        crop = Image.fromarray(pixels[top : top + side, left : left + side])
        crop.save(file, "PNG", compress_level=0)
        yield file.getvalue()


def framed(files: Iterable[bytes], spec: ImageSpec) -> Iterator[Images]:
    """Files as the service reads them, without those in which no ink is found."""
    for file in files:
        with contextlib.suppress(InvalidImage):
            yield read(file, spec)[None]


def read(file: bytes, spec: ImageSpec) -> Images:
    """One file as the service reads it: grey, of the model's size."""
    return read_image(file, spec, PixelBudget())


def score(service: Service, name: str, group: str, images: Images) -> Scored:
    """Send all images to ``reconstruct`` and ``embed``, REQUEST at a time."""
    replies, embeddings = [], []
    for start in range(0, len(images), REQUEST):
        body = write_npy(images[start : start + REQUEST])
        (reply,) = service.reconstruct([Message(body, {"content-type": NPY})])
        replies.append(json.loads(reply.body))
        (reply,) = service.embed([Message(body, {"content-type": NPY, "accept": NPY})])
        embeddings.append(np.asarray(read_npy(reply.body), np.float32))
    anomalies = [anomaly for reply in replies for anomaly in reply["anomaly"]]
    pictures = [picture for reply in replies for picture in reply["reconstructions"]]
    mse = np.concatenate([reply["mse"] for reply in replies])
    spread = np.linspace(0, len(images) - 1, EXAMPLES).astype(int)
    return Scored(
        name=name,
        group=group,
        mse=mse,
        relative=relative_errors(images, mse.astype(np.float32)),
        percentile=np.array([anomaly["percentile"] for anomaly in anomalies]),
        outlier=np.array([anomaly["outlier"] for anomaly in anomalies]),
        embeddings=np.concatenate(embeddings),
        examples=[(images[i, 0], open_png(pictures[i])) for i in spread],
    )


def open_png(text: str) -> Images:
    """Base64 of a grey PNG → uint8[H, W]."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def table(digits: Scored, others: list[Scored]) -> str:
    """The result in Markdown: a line for each kind, and a line for all kinds of the claim."""
    count, own, cross = f"{len(digits.mse):,}", share(digits.outlier), share(false_alarms(digits))
    lines = [
        f"| {count} test digits against | images | AUROC of mse | of relative error "
        "| of percentile | flagged |",
        "|---|---|---|---|---|---|",
        *(line(digits, kind) for kind in far(others)),
        line(digits, joined(far(others))),
        *(line(digits, kind) for kind in others if kind.group == "near"),
        f"| *test digits* | {count} | | | | {own} |",
        f"| *test digits, by their other half* | {count} | | | | {cross} |",
    ]
    return "\n".join(lines)


def line(digits: Scored, kind: Scored) -> str:
    """One kind's line: three AUROCs, and the share of images that were flagged."""
    rates = (
        auroc(digits.mse, kind.mse),
        auroc(digits.relative, kind.relative),
        auroc(digits.percentile, kind.percentile),
    )
    name = {"far": kind.name, "near": f"({kind.name})"}.get(kind.group, f"**{kind.name}**")
    cells = [name, f"{len(kind.mse):,}", *(f"{rate:.4f}" for rate in rates), share(kind.outlier)]
    return f"| {' | '.join(cells)} |"


def far(others: list[Scored]) -> list[Scored]:
    """The kinds that the claim is about."""
    return [kind for kind in others if kind.group == "far"]


def joined(parts: list[Scored]) -> Scored:
    """All kinds as one, every image counting the same."""
    arrays = ("mse", "relative", "percentile", "outlier", "embeddings")
    merged = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    return replace(parts[0], name="all of these", group="all", **merged)


def auroc(digits: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The chance that one of ``others`` scores higher than a digit; ties count half."""
    truth = np.repeat([0, 1], [len(digits), len(others)])
    return float(roc_auc_score(truth, np.concatenate([digits, others])))


def false_alarms(digits: Scored) -> NDArray[np.bool_]:
    """The digits' flags, where each half is judged by a calibration made from the other half.

    The shipped calibration was made from these same digits, so OUTLIER_PERCENTILE alone decides how
    many of them it flags.
    """
    flags = np.empty(len(digits.mse), bool)
    for own, other in ((np.s_[::2], np.s_[1::2]), (np.s_[1::2], np.s_[::2])):
        yardstick = Calibration(
            np.quantile(digits.mse[other], np.linspace(0, 1, 101)).tolist(),
            np.quantile(digits.relative[other], np.linspace(0, 1, 101)).tolist(),
            *(ends.tolist() for ends in embedding_range(digits.embeddings[other])),
        )
        pairs = zip(digits.relative[own], digits.embeddings[own], strict=True)
        flags[own] = [
            percentile(error, yardstick) > OUTLIER_PERCENTILE or is_outside(embedding, yardstick)
            for error, embedding in pairs
        ]
    return flags


def share(flags: NDArray[np.bool_]) -> str:
    """The share of flags that are set, in percent."""
    return f"{100 * flags.mean():.1f} %"


def replace_table(page: Path, text: str) -> None:
    """Replace the table between EDGES on a page."""
    head, _, rest = page.read_text().partition(EDGES[0])
    tail = rest.partition(EDGES[1])[2]
    page.write_text(f"{head}{EDGES[0]}\n{text}\n{EDGES[1]}{tail}")


def draw(digits: Scored, others: list[Scored], calibration: Calibration) -> Figure:
    """Draw a row for each kind: how its relative errors are distributed, and some examples."""
    rows = [digits, *others]
    figure = Figure(figsize=(12, 0.75 + 0.9 * len(rows)), dpi=100)
    grid = figure.subplots(len(rows), 2, width_ratios=(1.1, 0.9), squeeze=False)
    figure.subplots_adjust(0.015, 0.062, 0.99, 0.955, wspace=0.03, hspace=0.16)
    limit = float(np.interp(OUTLIER_PERCENTILE, np.arange(101), calibration.relative_quantiles))
    for (left, right), kind in zip(grid, rows, strict=True):
        draw_distribution(left, digits, kind, limit)
        draw_examples(right, kind)
    finish(figure, grid, limit)
    return figure


def draw_distribution(axes: Axes, digits: Scored, kind: Scored, limit: float) -> None:
    """Draw the kind's errors in its group's colour, over the digits' errors in grey."""
    middles = np.sqrt(BINS[1:] * BINS[:-1])
    axes.fill_between(middles, density(digits.relative), color=GHOST, linewidth=0)
    colour = {"digits": DIGITS, "far": FAR, "near": NEAR}[kind.group]
    axes.fill_between(middles, density(kind.relative), color=colour, alpha=0.75, linewidth=0)
    axes.axvline(limit, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set(xscale="log", xlim=(BINS[0], BINS[-1]), ylim=(0, 1.12), yticks=[])
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(which="both", bottom=False, labelbottom=False)
    facts = f"flagged {share(kind.outlier)}"
    if kind is not digits:
        facts = f"AUROC {auroc(digits.relative, kind.relative):.3f}\n{facts}"
    axes.text(0.005, 0.9, kind.name, transform=axes.transAxes, va="top", weight="bold", color=INK)
    axes.text(0.005, 0.6, facts, transform=axes.transAxes, va="top", fontsize=8.5, color=INK)


def density(errors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of images in each of BINS, smoothed over a few bins; the peak is 1."""
    counts = np.histogram(errors, BINS)[0]
    bell = np.exp(-np.square(np.arange(-6, 7) / 2.5) / 2)
    smooth = np.convolve(counts, bell, "same")
    return smooth / smooth.max()


def draw_examples(axes: Axes, kind: Scored) -> None:
    """Draw images in one row, and their reconstructions below."""
    sheet = np.full((2 * 30, len(kind.examples) * 30), 205, np.uint8)  # the gaps are light grey
    for column, pair in enumerate(kind.examples):
        for row, pixels in enumerate(pair):
            sheet[row * 30 + 1 :, column * 30 + 1 :][:28, :28] = pixels
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()


def finish(figure: Figure, grid: NDArray[np.object_], limit: float) -> None:
    """Add headings above the first row, and a scale and a legend below the last row."""
    first, last = grid[0], grid[-1]
    headings = ("Reconstruction error", "Images, and what the model remembers of them")
    first[0].text(limit * 1.03, 1.0, "flagged as outlier →", fontsize=9, color=INK)
    for axes, text in zip(first, headings, strict=True):
        axes.set_title(text, fontsize=11, color=INK, loc="left", pad=10)
    last[0].tick_params(which="both", bottom=True, labelbottom=True)
    last[0].set(xlabel="relative error", xticks=(0.01, 0.1, 1), xticklabels=("0.01", "0.1", "1"))
    meanings = {GHOST: "test digits", FAR: "nothing like a digit", NEAR: "looks like a digit"}
    patches = [Patch(color=colour, label=text) for colour, text in meanings.items()]
    figure.legend(handles=patches, loc="lower right", ncols=3, frameon=False, fontsize=10)


if __name__ == "__main__":
    sys.exit(main())
