"""The distribution of the error as an SVG, which takes its colours from the page's style."""

import numpy as np
from numpy.typing import NDArray

# The drawing's size in its own units, and the room that is left for the axes' figures.
WIDTH, HEIGHT = 760, 256
LEFT, BOTTOM, TOP = 60, 48, 16
RANKS_A_BAR = 4
EXPECTED = RANKS_A_BAR / 100  # Share of the images in each bar for the model's own images.
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5)  # Between the lines across, as shares of the images.


def rank_chart(ranks: NDArray[np.int64]) -> str:
    """Bars of the percentiles, with a line where all bars would end for the model's own images.

    Args:
        ranks: number of images at each percentile from 0 to 99, and at 100: int64[101].
    """
    bars = ranks[:100].reshape(-1, RANKS_A_BAR).sum(1)
    bars[-1] += ranks[100]
    shares = bars / max(1, bars.sum())
    top = max(shares.max(), EXPECTED) * 1.08
    wide = (WIDTH - LEFT) / len(bars)
    drawn = [
        f'<rect x="{LEFT + i * wide + 1:.1f}" y="{y_of(share, top):.1f}" '
        f'width="{wide - 2:.1f}" height="{HEIGHT - BOTTOM - y_of(share, top):.1f}" rx="2"/>'
        for i, share in enumerate(shares)
    ]
    below = HEIGHT - BOTTOM + 19
    ticks = [
        f'<text x="{LEFT + rank / 100 * (WIDTH - LEFT):.1f}" y="{below}">{rank}</text>'
        for rank in range(0, 101, 20)
    ]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH + 14} {HEIGHT}" aria-hidden="true">'
        f"{''.join(grid(top))}{''.join(drawn)}"
        f'<path class="expected" d="M{LEFT},{y_of(EXPECTED, top):.1f}H{WIDTH}"/>'
        f'{"".join(ticks)}<text x="{LEFT + (WIDTH - LEFT) / 2:.1f}" y="{HEIGHT - 5}">'
        "percentile among the model’s own images</text></svg>"
    )


def y_of(share: float, top: float) -> float:
    """The height of a share of the images, in the drawing's units."""
    return HEIGHT - BOTTOM - share / top * (HEIGHT - BOTTOM - TOP)


def grid(top: float) -> list[str]:
    """Lines across, at round shares of the images."""
    step = next(each for each in STEPS if each * 4 >= top)
    return [
        f'<path class="grid" d="M{LEFT},{y_of(share, top):.1f}H{WIDTH}"/>'
        f'<text class="left" x="{LEFT - 8}" y="{y_of(share, top) + 4:.1f}">'
        f"{100 * share:.3g} %</text>"
        for share in np.arange(0, top, step)
    ]
