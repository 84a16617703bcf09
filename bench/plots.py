"""The pictures of docs/benchmarks.md."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.contenders import OURS
from bench.tables import CONNECTIONS, MANY, Figures, median_rate

SIZE = (8, 5)  # inches


def draw_requests(figures: Figures, path: Path) -> None:
    """Requests/s against connections, a line for each contender; this project's are solid."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    names = [name for what, name in figures if what == f"single {MANY}"]
    for name in sorted(names, key=lambda name: -median_rate(figures[f"single {MANY}", name])):
        rates = [median_rate(figures[f"single {count}", name]) for count in CONNECTIONS]
        ours = name.partition(" ")[0] in OURS
        axes.plot(CONNECTIONS, rates, "o-" if ours else "o--", label=name, linewidth=1 + ours)
    axes.set(title="One 28 × 28 PNG a request", ylabel="requests/s", xlabel="connections")
    as_powers(axes, CONNECTIONS)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path)


def draw_curves(curves: Mapping[str, Mapping[int, Sequence[float]]], path: Path) -> None:
    """A plot for each curve: what is varied → its values → images/s of each round."""
    figure = Figure(figsize=(SIZE[0] * 1.3, SIZE[1] * 1.3), layout="constrained")
    for axes, (title, curve) in zip(figure.subplots(2, 3).flat, curves.items(), strict=False):
        axes.plot(list(curve), [statistics.median(rates) for rates in curve.values()], "o-")
        axes.set(title=title, ylabel="images/s")
        as_powers(axes, list(curve))
        axes.set_ylim(bottom=0)
    figure.savefig(path)


def as_powers(axes: Axes, values: Sequence[int]) -> None:
    """A logarithmic axis with the measured values, and no others, on it."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{value:,}" for value in values])
    axes.minorticks_off()
