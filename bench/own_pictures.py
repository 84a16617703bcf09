"""Your own pictures: does the default command beat PCA, whatever the set?

    python -m bench.own_pictures --pictures 400 --pixels 64 --colour
    python -m bench.own_pictures --only my_images

Makes a folder of pictures of three kinds (discs, stripes and clouds, a subfolder each), trains on
it by README's command, without any hyperparameter, and prints a row of the table in
docs/own-model.md: the errors of the mean image, of PCA with as many numbers, and of the model, on
NEW more pictures of these kinds. With --only it makes the pictures, for docs/tutorial.md.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from train.checkpoint import load_checkpoint
from train.data import load_dataset
from train.evaluate import embed_and_score
from train.pca import fit_pca

KINDS = ("discs", "stripes", "clouds")
NEW = 1_000  # a small set's own test images would leave to chance which is better
HEAD = "| pictures | pixels | | mean image | PCA | model | epochs | seconds |\n" + "|---" * 8 + "|"

Shade = NDArray[np.float64]  # [H, W] in 0..1: how much of the second colour a pixel has
Random = np.random.Generator


def discs(side: int, random: Random) -> Shade:
    """One to three discs anywhere."""
    shade = np.zeros((side, side))
    y, x = np.mgrid[0:side, 0:side] / side
    for _ in range(random.integers(1, 4)):
        (top, left), radius = random.random(2), random.uniform(0.1, 0.35)
        edge = (radius - np.hypot(y - top, x - left)) * side
        shade = np.maximum(shade, np.clip(edge + 0.5, 0, 1))  # an edge is one pixel wide
    return shade


def stripes(side: int, random: Random) -> Shade:
    """Stripes of any direction, two to six of them."""
    y, x = np.mgrid[0:side, 0:side] / side
    angle, count, phase = random.uniform(0, np.pi), random.uniform(2, 6), random.random()
    wave = np.sin(2 * np.pi * (count * (x * np.cos(angle) + y * np.sin(angle)) + phase))
    return np.asarray(0.5 + 0.5 * wave)


def clouds(side: int, random: Random) -> Shade:
    """Soft light and dark places."""
    rough = Image.fromarray(random.random((4, 4)).astype(np.float32))
    return np.clip(np.asarray(rough.resize((side, side), Image.Resampling.BICUBIC)), 0, 1)


def picture(kind: str, side: int, colour: bool, random: Random) -> Image.Image:
    """A picture in two colours, or two greys, with a little of a sensor's noise."""
    shade = {"discs": discs, "stripes": stripes, "clouds": clouds}[kind](side, random)
    ground, ink = random.random((2, 3 if colour else 1))
    pixels = ground + (ink - ground) * shade[..., None]
    pixels += random.normal(0, 0.02, pixels.shape)
    values = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(values if colour else values[..., 0])


def make_pictures(folder: Path, count: int, side: int, colour: bool, seed: int = 0) -> None:
    """Write ``count`` PNGs into a subfolder for each kind; the same arguments, the same pixels."""
    random = np.random.default_rng(seed)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        made = picture(kind, side, colour, random)
        made.save(folder / kind / f"{index:05}.png")


def errors_on_new(checkpoint: Path, images: Path) -> list[float]:
    """The mse of the mean image, of PCA and of the model, per pixel, on NEW pictures.

    Args:
        checkpoint: of the model.
        images: the folder that the model was trained on.
    """
    model = load_checkpoint(checkpoint).model
    channels, side, width = model.config.input_dim, model.config.image_size, model.config.output_dim
    learned = load_dataset("folder", images, channels, side).train_images
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), NEW, side, colour=channels == 3, seed=1)
        made = load_dataset("folder", Path(folder), channels, side)
    new = torch.cat([made.train_images, made.test_images])
    as_mean, as_pca = fit_pca(learned, width).errors(new, width)
    return [
        as_mean.mean().item(),
        as_pca.mean().item(),
        float(embed_and_score(model, new)[1].mean()),
    ]


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--pixels", type=int, default=64, help="of a side (default: %(default)s)")
    parser.add_argument("--colour", action="store_true", help="in colour; otherwise grey")
    parser.add_argument("--only", type=Path, metavar="FOLDER", help="only make the pictures, there")
    options = parser.parse_args()
    if options.only:
        make_pictures(options.only, options.pictures, options.pixels, options.colour)
        return 0
    with tempfile.TemporaryDirectory() as home:
        images, out = Path(home) / "pictures", Path(home) / "run"
        make_pictures(images, options.pictures, options.pixels, options.colour)
        command = [sys.executable, "-m", "train", "--dataset", "folder", "--data-dir", str(images)]
        command += ["--image-size", str(options.pixels), "--out", str(out)]
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=sys.stderr)
        seconds = time.monotonic() - started
        epochs = len((out / "metrics.jsonl").read_text().splitlines())
        errors = errors_on_new(out / "checkpoint", images)
    known = f"{options.pictures:,} | {options.pixels} | {'colour' if options.colour else 'grey'}"
    figures = " | ".join(f"{error:.4f}" for error in errors)
    print(f"{HEAD}\n| {known} | {figures} | {epochs} | {seconds:,.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
