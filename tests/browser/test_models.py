"""Models that aren't MNIST's: other widths, colours, no labels. The page is useful all the same."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from export.__main__ import export
from train.__main__ import main as train_main
from train.dataset import Dataset

from ..conftest import train_small
from ..e2e.conftest import running
from .conftest import Visit, exploring
from .gestures import SEVEN, draw, hover, overflow, pick, picture, wait_for_change


def use_everything(visit: Visit, bundle_folder: Path, folder: Path, words: str, title: str) -> None:
    """Hover, pin, draw and fill, on a service of the bundle; the page says what its map is."""
    bundle = export(bundle_folder, folder / "bundle", "1.0")
    with running(bundle, folder) as service, exploring(service.url) as url:
        page = visit(url)
        expect(page.locator("h1")).to_have_text(title)
        expect(page.locator("#note")).to_contain_text(words)
        expect(page.locator("#lens output")).not_to_be_empty()
        before = picture(page, "#lens canvas")
        hover(page, 0.2, 0.3)
        wait_for_change(page, "#lens canvas", before)
        pick(page, 0.2, 0.3)
        pick(page, 0.8, 0.6)
        expect(page.locator("#strip li")).to_have_count(11)
        blank = picture(page, "#seen")
        draw(page, SEVEN)
        expect(page.locator("#verdict")).to_contain_text("mse 0.")
        assert picture(page, "#seen") != blank
        dots = picture(page, "#map canvas.dots")
        page.click("#pictures")
        wait_for_change(page, "#map canvas.dots", dots)
        assert overflow(page) <= 0


@pytest.mark.parametrize(
    ("width", "title", "words"),
    [
        (1, "Images through one number, and back.", "the rows are the labels"),
        (64, "Images through 64 numbers, and back.", "of their variance"),
    ],
)
def test_other_widths(
    visit: Visit, tmp_path: Path, digits: Dataset, width: int, title: str, words: str
) -> None:
    """One number is laid out by label; many are shown by their two principal axes."""
    checkpoint = train_small(tmp_path / "small", digits, output_dim=width)

    use_everything(visit, checkpoint, tmp_path, words, title)


def make_discs(folder: Path, count: int = 60) -> Path:
    """Discs of one colour on a ground of another, all in one folder: no labels."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for index in range(count):
        ground, ink = (tuple(map(int, random.integers(0, 255, 3))) for _ in range(2))
        picture = Image.new("RGB", (32, 32), ground)
        left, top = random.integers(2, 14, 2)
        ImageDraw.Draw(picture).ellipse((left, top, left + 14, top + 14), fill=ink)
        picture.save(folder / f"{index}.png")
    return folder


def test_colours_without_labels(visit: Visit, tmp_path: Path) -> None:
    """RGB, 3 numbers, one class only: no legend, and pictures in their own colours."""
    images = make_discs(tmp_path / "images")
    model = ["--hidden-dim", "8", "--output-dim", "3", "--image-size", "32", "--layout", "0"]
    training = ["--epochs", "60", "--learning-rate", "3e-3", "--batch-size", "16"]
    source = ["--dataset", "folder", "--data-dir", str(images), "--out", str(tmp_path / "run")]
    assert train_main([*source, *model, *training]) == 0

    use_everything(
        visit,
        tmp_path / "run" / "checkpoint",
        tmp_path,
        "of their variance",
        "Images through three numbers, and back.",
    )
