"""Pictures of small runs."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.font_manager import fontManager
from torch import Tensor

from tests.train.conftest import SMALL
from train.loop import Epoch, evaluation_size
from train.model import Autoencoder
from train.pictures import LONGEST_NAME, draw_losses, draw_map, manifold_sheet


def test_a_map_of_few_points_shows_them_all() -> None:
    """80 points are drawn large, none beyond the edges, and classes have their names."""
    points = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)

    (axes,) = draw_map(points, np.arange(80) % 2, ("circles", "squares")).axes

    assert {text.get_text() for text in axes.texts} == {"circles", "squares"}
    assert all(dots.get_sizes() == pytest.approx(60) for dots in axes.collections)
    for (low, high), values in zip((axes.get_xlim(), axes.get_ylim()), points.T, strict=True):
        assert low < values.min()
        assert values.max() < high


def test_a_map_of_many_points_leaves_out_far_ones() -> None:
    """One far point of thousands doesn't shrink the others."""
    points = np.random.default_rng(0).normal(size=(5_000, 2)).astype(np.float32)
    points[0] = 1e6

    (axes,) = draw_map(points, np.zeros(5_000, np.int64)).axes

    assert axes.get_xlim()[1] < 10


def test_losses_of_one_epoch_are_seen() -> None:
    """A single epoch has no line, so it is a point; the axis counts whole epochs."""
    (axes,) = draw_losses([Epoch(1, 0.05, 0.06)]).axes

    assert [line.get_marker() for line in axes.lines] == ["o", "o"]
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_long_names_do_not_shrink_the_map() -> None:
    """Names are cut short, and the axes are as wide as with short names."""
    points = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
    widths = []
    for names in (("a", "b"), ("goldfish " * 30, "b")):
        figure = draw_map(points, np.arange(80) % 2, names)
        figure.savefig(io.BytesIO())
        widths.append(figure.axes[0].get_position().width)

    assert widths[0] == widths[1]
    assert max(len(text.get_text()) for text in figure.axes[0].texts) == LONGEST_NAME


def test_names_without_a_font_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A map shows no boxes: it shows the class's number, and stderr says which class that is."""
    usual = [font for font in fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(fontManager, "ttflist", usual)
    points = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)

    (axes,) = draw_map(points, np.arange(80) % 2, ("猫", "dog")).axes

    assert {text.get_text() for text in axes.texts} == {"0", "dog"}
    assert "0 is 猫" in capsys.readouterr().err


def test_a_hundred_classes_have_a_hundred_colours() -> None:
    """No two of them look alike by their place in a short list."""
    points = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)

    (axes,) = draw_map(points, np.arange(300) % 100).axes

    assert len({tuple(dots.get_facecolor()[0]) for dots in axes.collections}) == 100


def test_a_class_may_have_any_name() -> None:
    """Neither dollar signs nor bytes that aren't UTF-8 keep the map from being drawn."""
    points = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)

    figure = draw_map(points, np.arange(80) % 2, ("a $_{5 b$", "caf\udce9"))

    figure.savefig(io.BytesIO())
    assert {text.get_text() for text in figure.axes[0].texts} == {"a $_{5 b$", "caf?"}


def test_the_manifold_is_drawn_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 pictures at once would take ten times the memory of training on large ones."""
    model, sizes = Autoencoder(replace(SMALL, image_size=96)), list[int]()
    decode = model.decode

    def counted(embeddings: Tensor) -> Tensor:
        sizes.append(len(embeddings))
        return decode(embeddings)

    monkeypatch.setattr(model, "decode", counted)
    points = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)

    assert manifold_sheet(model, points).shape == (1, 20 * 96, 20 * 96)
    assert sum(sizes) == 400
    assert max(sizes) <= evaluation_size(96) < 50
