"""Find the ink in a picture of a page, a board or a screen.

Three things stand between a photograph and its ink. Light falls unevenly: a quadratic surface is
fitted to the ground and taken away. Rulings cross the page: the median of each row and of each
column is taken away, too. Specks, and what is left of the rulings, are ink as well: only parts that
are large beside the largest part are kept.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from serve.bundle.errors import InvalidImage

LARGEST_SIDE = 320  # pixels; a larger picture is reduced to this side first
SAMPLES = 48  # rows and columns that the ground's surface is fitted to
ROUNDS = 6  # of fitting the surface and leaving out the pixels that aren't ground
GAUSSIAN = 1.4826  # standard deviations in a median absolute deviation
FAINTEST = 14.0  # grey levels from the ground to the faintest ink
ROUGHEST = 1 / 6  # noise of a page's ground beside its ink; a rougher ground is no page's
RULING_SHARE = 0.02  # of a picture's height, or width: the breadth of a ruling is less
LEAST_PIXELS = 6  # that ink has
LEAST_PART = 0.08  # of the largest part's area; smaller parts are specks
MOST_ON_EDGE = 0.03  # of the picture's outermost pixels; ink on more goes on outside of the picture
SHARP_SIDE = 32  # pixels; a larger drawing gets sharper edges, since it will be reduced

Levels = NDArray[np.float32]  # [H, W]


def find_ink(picture: Image.Image, polarity: str) -> Levels | None:
    """How much ink each pixel has, 0 to 1, cut to the ink that belongs together.

    Args:
        picture: upright, of mode ``L`` or ``RGB``.
        polarity: ``auto`` takes what stands out most, ``keep`` light ink, ``invert`` dark ink.

    Returns:
        float32[h, w] with ink in every outermost row and column; None where the ground is uneven,
        or what stands out on it goes on outside, as in a photograph of anything but a page.

    Raises:
        InvalidImage: the ground is even, and nothing stands out on it.
    """
    grey = picture.convert("L")
    grey.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BOX)
    height = flatten(np.asarray(grey, np.float32), polarity)
    sample = height[::2, ::2]  # has the median of all, in a quarter of the time
    noise = GAUSSIAN * float(np.median(np.abs(sample - np.median(sample))))
    strength = ink_strength(height, noise)
    if noise > ROUGHEST * max(FAINTEST, strength):
        return None
    if strength < FAINTEST:
        raise InvalidImage("no ink found: nothing stands out on the picture's ground")
    ink = height / strength
    kept = large_parts(ink > 0.5)
    return None if share_of_edge(kept) > MOST_ON_EDGE else cut_out(ink, kept)


def flatten(levels: Levels, polarity: str) -> Levels:
    """How far each pixel stands out from the ground, in grey levels; ink is positive."""
    height = levels - ground(levels)
    darkest, lightest = np.quantile(height[::2, ::2], (0.002, 0.998))
    if polarity == "invert" or (polarity == "auto" and -darkest > lightest):
        height = -height
    height = height - rulings(np.median(height[:, ::2], axis=1))[:, None]
    return height - rulings(np.median(height[::2], axis=0))


def rulings(profile: Levels) -> Levels:
    """How strong a ruling each row (or column) is, of the rows' medians: float32[rows].

    A ruling is narrow. What is broad, as a stroke across the whole picture is, stays: it survives
    the minimum over RULING_SHARE of the rows, and the maximum after it.
    """
    window = max(4, round(RULING_SHARE * len(profile)))
    wide = np.pad(profile, (window - 1, window - 1), mode="reflect")
    broad = sliding_window_view(sliding_window_view(wide, window).min(1), window).max(1)
    narrow: Levels = np.maximum(profile - broad, 0)
    return narrow


def ground(levels: Levels) -> Levels:
    """The brightness of the page without its ink: a quadratic surface.

    Each round fits the surface to the pixels that the round before found to be ground.
    """
    rows, columns = (
        np.unique(np.linspace(0, side - 1, min(side, SAMPLES)).astype(int)) for side in levels.shape
    )
    terms = quadratic(levels.shape, rows, columns).reshape(-1, 6)
    ring = np.median(np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]]))
    samples = levels[np.ix_(rows, columns)].ravel() - ring
    is_ground = is_nearest_half(np.abs(samples))
    for _ in range(ROUNDS):
        surface = least_squares(terms[is_ground], samples[is_ground])
        gap = np.abs(samples - np.einsum("ni,i->n", terms, surface))
        is_ground = gap < 2.5 * (GAUSSIAN * np.median(gap[is_ground]) + 1)
        if is_ground.mean() < 0.25:  # the surface fits little: go on with the half that it fits
            is_ground = is_nearest_half(gap)
    y, x = (axis.astype(np.float32) for axis in axes(levels.shape, *map(np.arange, levels.shape)))
    a, b, c, d, e, f = map(np.float32, surface)
    return a + np.float32(ring) + b * x + d * x * x + (c + e * y + f * x) * y


def least_squares(terms: NDArray[np.float64], values: Levels) -> NDArray[np.float64]:
    """The weights, float64[6], with which the terms, [N, 6], come closest to the values, [N].

    The normal equations are summed up by einsum. BLAS would start threads, which spin on cores that
    other requests need. The small number keeps them solvable for a picture one pixel wide.
    """
    squares = np.einsum("ni,nj->ij", terms, terms) + 1e-9 * len(terms) * np.eye(terms.shape[1])
    weights: NDArray[np.float64] = np.linalg.solve(squares, np.einsum("ni,n->i", terms, values))
    return weights


def is_nearest_half(distances: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which distances are at most the median."""
    nearest: NDArray[np.bool_] = distances <= np.median(distances)
    return nearest


def quadratic(
    shape: tuple[int, ...], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The terms 1, x, y, x², y² and xy at some rows and columns: float64[rows, columns, 6]."""
    y, x = axes(shape, rows, columns)
    return np.stack(np.broadcast_arrays(np.ones(1), x, y, x * x, y * y, x * y), axis=-1)


def axes(
    shape: tuple[int, ...], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return y and x of some rows and columns, from -1 to 1 over a picture of this shape."""
    y = (rows / max(1, shape[0] - 1) * 2 - 1)[:, None]
    return y, (columns / max(1, shape[1] - 1) * 2 - 1)[None]


def ink_strength(height: Levels, noise: float) -> float:
    """How far ink stands out, in grey levels; 0 where hardly a pixel does."""
    tallest = float(np.quantile(height, 0.998))
    standing_out = height[height > max(4 * noise, 0.3 * tallest)]
    return float(np.median(standing_out)) if len(standing_out) >= LEAST_PIXELS else 0.0


def share_of_edge(mask: NDArray[np.bool_]) -> float:
    """Which share of the outermost pixels a mask has."""
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())


def cut_out(ink: Levels, kept: NDArray[np.bool_]) -> Levels:
    """The box around the large parts of the ink, with nothing but those parts in it.

    Args:
        ink: 1 where the ink is as strong as usual, 0 on the ground.
        kept: where its large parts are.
    """
    rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    box = slice(max(0, rows[0] - 2), rows[-1] + 3), slice(max(0, columns[0] - 2), columns[-1] + 3)
    near, part = grow(grow(kept[box])), ink[box]
    # The soft edges of a small drawing hold what its few pixels can't.
    softness = min(1.0, max(0.3, SHARP_SIDE / max(part.shape)))
    drawn = np.clip((part - 0.5) / softness + 0.5, 0, 1) * near
    rows, columns = (np.flatnonzero((drawn > 0.35).any(axis)) for axis in (1, 0))
    result: Levels = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return result


def grow(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask, and the four neighbours of each of its pixels."""
    wide = np.pad(mask, 1)
    return mask | wide[2:, 1:-1] | wide[:-2, 1:-1] | wide[1:-1, 2:] | wide[1:-1, :-2]


def large_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of a mask, without those that are small beside the largest part.

    Neither numpy nor Pillow labels connected parts. Here each run of a row is joined with the runs
    that it touches in the row above, corners included.
    """
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8))
    (rows, starts), (_, ends) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    row = mask.shape[1] + 2  # places of a row, so that runs of different rows never meet
    begins, stops = rows * row + starts, rows * row + ends
    first = np.searchsorted(stops, begins - row)
    touched = np.searchsorted(begins, stops - row, "right") - first
    below = np.repeat(np.arange(len(rows)), touched)
    above = np.arange(len(below)) + np.repeat(first - np.cumsum(touched) + touched, touched)
    part = connected(len(rows), below, above)
    areas = np.bincount(part, stops - begins)
    small = areas[part] < LEAST_PART * areas.max()
    steps[rows[small], starts[small]] = steps[rows[small], ends[small]] = 0
    return np.cumsum(steps, axis=1)[:, :-1] > 0


def connected(count: int, ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest number that each of 0 to ``count`` is connected with by pairs: int64[count]."""
    least = np.arange(count)
    while (least[ones] != least[others]).any():
        one, other = least[ones], least[others]
        np.minimum.at(least, np.maximum(one, other), np.minimum(one, other))
        while (least != least[least]).any():
            least = least[least]
    return least
