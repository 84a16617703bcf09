"""The distribution of the error as an SVG, which takes its colours from the page's style."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pinhole.report.tally import BINS_A_DECADE, LEAST_MSE, Errors

# The drawing's size in its own units, and the room that is left for the axes' figures.
WIDTH, HEIGHT = 760, 256
LEFT, BOTTOM, TOP = 60, 48, 16
RANKS_A_BAR = 4
MSE_BARS = 40
MSE_TAIL = 0.001  # Share of the images on each side that may lie outside the axis of the mse.


def rank_chart(ranks: NDArray[np.int64]) -> str:
    """Bars of the percentiles, with a line where all bars would end for the model's own images.

    Args:
        ranks: number of images at each percentile from 0 to 99, and at 100: int64[101].
    """
    bars = ranks[:100].reshape(-1, RANKS_A_BAR).sum(1)
    bars[-1] += ranks[100]
    ticks = [(place / 100, str(place)) for place in range(0, 101, 20)]
    return draw(bars, ticks, "percentile among the model’s own images", RANKS_A_BAR / 100)


def mse_chart(errors: Errors) -> str:
    """Bars of the mse, on a logarithmic axis."""
    shares = errors.counts.cumsum() / errors.counts.sum()
    low, high = (int(np.searchsorted(shares, each)) for each in (MSE_TAIL, 1 - MSE_TAIL))
    edges = np.linspace(low, high + 1, MSE_BARS + 1).round().astype(int)
    within = np.concatenate(([0], errors.counts.cumsum()))[edges]
    ends = np.log10(LEAST_MSE) + np.array([low, high + 1]) / BINS_A_DECADE
    ticks = [
        ((np.log10(value) - ends[0]) / (ends[1] - ends[0]), f"{value:g}")
        for value in round_numbers(*10**ends)
    ]
    return draw(np.diff(within), ticks, "mse, on a logarithmic axis")


def round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two numbers."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    values = (factor * 10.0**power for power in powers for factor in (1, 2, 5))
    return [value for value in values if low <= value <= high]


def draw(
    bars: Sequence[int] | NDArray[np.int64],
    ticks: Sequence[tuple[float, str]],
    name: str,
    expected: float = 0,
) -> str:
    """A bar chart.

    Args:
        bars: number of images in each bar.
        ticks: (place from 0 to 1, text) along the lower edge.
        name: of the lower axis.
        expected: share of the images in each bar for the model's own images; 0 if there is none.
    """
    total = max(1, int(np.sum(bars)))
    top = max(float(np.max(bars)) / total, expected) * 1.08 or 1
    wide = (WIDTH - LEFT) / len(bars)
    drawn = [
        f'<rect x="{LEFT + i * wide + 1:.1f}" y="{y_of(bar / total, top):.1f}" '
        f'width="{wide - 2:.1f}" height="{HEIGHT - BOTTOM - y_of(bar / total, top):.1f}" rx="2"/>'
        for i, bar in enumerate(bars)
    ]
    below = [
        f'<text x="{LEFT + place * (WIDTH - LEFT):.1f}" y="{HEIGHT - BOTTOM + 19}">{text}</text>'
        for place, text in ticks
    ]
    middle = LEFT + (WIDTH - LEFT) / 2
    below.append(f'<text x="{middle:.1f}" y="{HEIGHT - 5}">{name}</text>')
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH + 14} {HEIGHT}" aria-hidden="true">'
        f"{''.join(grid(top))}{''.join(drawn)}{line(expected, top)}{''.join(below)}</svg>"
    )


def y_of(share: float, top: float) -> float:
    """The height of a share of the images, in the drawing's units."""
    return HEIGHT - BOTTOM - share / top * (HEIGHT - BOTTOM - TOP)


def grid(top: float) -> list[str]:
    """Lines across, at round shares of the images."""
    step = next(each for each in round_numbers(top / 10, top * 10) if each * 4 >= top)
    shares = np.arange(0, top, step)
    return [
        f'<path class="grid" d="M{LEFT},{y_of(share, top):.1f}H{WIDTH}"/>'
        f'<text class="left" x="{LEFT - 8}" y="{y_of(share, top) + 4:.1f}">'
        f"{100 * share:.3g} %</text>"
        for share in shares
    ]


def line(expected: float, top: float) -> str:
    """The line of the model's own images."""
    if not expected:
        return ""
    return f'<path class="expected" d="M{LEFT},{y_of(expected, top):.1f}H{WIDTH}"/>'
