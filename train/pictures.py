"""Pictures of a trained model: its losses, reconstructions, map of embeddings and manifold."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from serve.bundle.images import write_png
from train.dataset import Dataset
from train.loop import Epoch, evaluation_size
from train.model import Autoencoder, to_pixels

PER_CLASS = 10  # images of each class on the sheet of reconstructions
MANIFOLD_SIDE = 20  # decoded points along each side of the manifold sheet
DPI = 100
FEW_EPOCHS = 10  # fewer are drawn as points too
FEW_POINTS = 1_000  # up to so many, the map shows all
TAB10 = 10  # colours that are easily told apart; for more classes than that, a rainbow
LONGEST_NAME = 24  # characters
INK = 5_000  # area of all of a map's points, in square points of print


def draw_all(
    folder: Path,
    model: Autoencoder,
    dataset: Dataset,
    embeddings: NDArray[np.float32],
    history: list[Epoch],
) -> None:
    """Write every picture as a PNG into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_losses(history).savefig(folder / "losses.png")
    found = draw_map(embeddings, dataset.test_labels.numpy(), dataset.classes)
    found.savefig(folder / "map.png")
    sheet = reconstruction_sheet(model, dataset)
    (folder / "reconstructions.png").write_bytes(write_png(sheet.numpy()))
    if embeddings.shape[1] == 2:
        sheet = manifold_sheet(model, embeddings)
        (folder / "manifold.png").write_bytes(write_png(sheet.numpy()))


def draw_losses(history: list[Epoch]) -> Figure:
    """Training and validation error over the epochs."""
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    epochs = [epoch.epoch for epoch in history]
    marker = "o" if len(history) < FEW_EPOCHS else ""  # a line needs two points to be seen
    train_mse = [epoch.train_mse for epoch in history]
    axes.plot(epochs, train_mse, marker=marker, label="training images")
    val_mse = [epoch.val_mse for epoch in history if epoch.val_mse is not None]
    if val_mse:
        axes.plot(epochs, val_mse, marker=marker, label="validation images")
    axes.set(xlabel="epoch", ylabel="mse per pixel", yscale="log", xlim=(0.5, len(history) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks("{x:.3g}")  # a short range on a log axis has no power of ten to name
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    return figure


def draw_map(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str] = ()
) -> Figure:
    """A scatter plot of the test images' embeddings, coloured and named by label.

    Embeddings of more or fewer than two numbers are drawn along their principal axes.
    """
    points = embeddings if embeddings.shape[1] == 2 else principal_axes(embeddings)
    figure = Figure(figsize=(8, 8), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    area = np.clip(INK / len(points), 3, 60)
    drawn = np.unique(labels).tolist()
    names = {label: shortened(classes[label]) if classes else str(label) for label in drawn}
    fonts = {label: font_for(name) for label, name in names.items()}
    if unwritten := [f"{label} is {names[label]}" for label in drawn if not fonts[label]]:
        told = ", ".join(unwritten)
        print(f"map.png has numbers for names that no font here can write: {told}", file=sys.stderr)
    colours = colormaps["tab10" if len(drawn) <= TAB10 else "turbo"]
    for place, label in enumerate(drawn):
        group, shade = points[labels == label], place if len(drawn) <= TAB10 else place / len(drawn)
        x, y = group.T
        axes.scatter(x, y, s=area, alpha=0.6, linewidths=0, color=colours(shade))
        text, middle = names[label] if fonts[label] else str(label), np.median(group, axis=0)
        name = axes.annotate(text, middle, ha="center", parse_math=False, family=fonts[label])
        name.set(fontsize=16 if len(drawn) <= TAB10 else 8, fontweight="bold")
        name.set_in_layout(False)  # a long name would shrink the map
    # A few far points of many would shrink the rest.
    margin = 0.01 if len(points) > FEW_POINTS else 0
    (left, bottom), (right, top) = np.quantile(points, (margin, 1 - margin), axis=0)
    wide, high = (right - left) / 20 or 1, (top - bottom) / 20 or 1
    axes.set(xlim=(left - wide, right + wide), ylim=(bottom - high, top + high))
    axes.grid(alpha=0.2)
    return figure


def shortened(name: str) -> str:
    """A class's name, as a map has room for it; a folder's may hold bytes that aren't UTF-8."""
    words = " ".join(name.encode("utf-8", "replace").decode().split())
    return words if len(words) <= LONGEST_NAME else words[: LONGEST_NAME - 1] + "…"


def font_for(text: str) -> str | None:
    """The first of matplotlib's fonts, usual ones first, that has every character of a text."""
    needed = {ord(character) for character in text}
    # The font Last Resort has a box for every character. A font on the list may have been removed.
    fonts = [font for font in fontManager.ttflist if "Last Resort" not in font.name]
    for font in sorted(fonts, key=lambda font: font.name != "DejaVu Sans"):
        if Path(font.fname).is_file() and needed <= get_font(font.fname).get_charmap().keys():
            return font.name
    return None


def principal_axes(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[N, D] → float32[N, 2]: the first two principal components, zeros where D is 1."""
    centred = embeddings - embeddings.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    points = np.zeros((len(embeddings), 2), np.float32)
    points[:, : len(axes)] = centred @ axes.T
    return points


@torch.inference_mode()
def reconstruction_sheet(model: Autoencoder, dataset: Dataset) -> Tensor:
    """uint8[C, H, W]: for each of ten classes, a row of images above their reconstructions."""
    rows = []
    for label in np.unique(dataset.test_labels.numpy()).tolist()[:10]:
        images = dataset.test_images[dataset.test_labels == label][:PER_CLASS]
        reconstructions = to_pixels(model(images))
        blanks = torch.zeros(PER_CLASS - len(images), *images.shape[1:], dtype=torch.uint8)
        rows += [torch.cat([part, blanks]) for part in (images, reconstructions)]
    return tile(torch.stack(rows))


@torch.inference_mode()
def manifold_sheet(model: Autoencoder, embeddings: NDArray[np.float32]) -> Tensor:
    """uint8[C, H, W]: what the decoder draws across the region where 98 % of images lie.

    Rows and columns are spaced by quantiles of the embeddings, not by distance: most images share a
    small part of the map, and there is most to see there.
    """
    quantiles = np.quantile(embeddings, np.linspace(0.01, 0.99, MANIFOLD_SIDE), axis=0)
    x, y = torch.from_numpy(quantiles.astype(np.float32)).T
    y = y.flip(0)  # the greatest y is in the top row
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)  # [rows, columns, 2]
    batches = torch.split(points.flatten(0, 1), evaluation_size(model.config.image_size))
    drawn = torch.cat([to_pixels(model.decode(batch)) for batch in batches])
    return tile(drawn.reshape(MANIFOLD_SIDE, MANIFOLD_SIDE, *drawn.shape[1:]))


def tile(cells: Tensor) -> Tensor:
    """uint8[rows, columns, C, H, W] → uint8[C, rows · H, columns · W]."""
    rows, columns, channels, height, width = cells.shape
    return cells.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)
