"""What bench.online found, as markdown tables."""

import platform
import statistics
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime

from bench.contenders import FASTAPI, LITSERVE
from bench.wrk import Load
from serve.bundle.engine.host import usable_cores

MANY = 64  # connections that send single images
FEW = 4  # connections that send plural requests
STRANGERS = 100  # requests a second from independent callers, with one image each
FORMS = ("npy", "OIP")  # of plural requests
PLURAL = 256  # images in a plural request
LARGE = 4_096  # images in the largest request that the service takes

# (what, contender) → a Load for each round; for "ready", "rest" and "after" a number of s or MB.
Figures = dict[tuple[str, str], list[Any]]


def print_report(figures: Figures, serve_args: str) -> None:
    """Print the tables, and the faults that make a figure invalid."""
    print(f"{machine()}; python -m serve {serve_args or 'as it comes'}")
    for marker, print_table in (
        ("many", print_single),
        ("rest", print_footprint),
        ("npy", print_plural),
        ("embed alone", print_mixed),
    ):
        names = [name for what, name in figures if what == marker]
        if names:
            print_table(figures, names)
    for fault in faults(figures):
        print(f"\nINVALID: {fault}")


def faults(figures: Figures) -> Iterator[str]:
    """The loads that are invalid, and why."""
    for (what, name), found in figures.items():
        for number, figure in enumerate(found, 1):
            if isinstance(figure, Load) and figure.faults:
                yield f"{name}, {what}, round {number}: {dict(figure.faults)}"


def machine() -> str:
    """The processor and the versions of this run."""
    versions = [f"onnxruntime {onnxruntime.__version__}"]
    versions += [
        f"{package} {version(package)}"
        for package in ("granian", "torchserve", "fastapi", "uvicorn", "litserve")
    ]
    return f"{usable_cores()} cores of {processor()}, {', '.join(versions)}"


def processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.machine()])[0]


def print_single(figures: Figures, names: Iterable[str]) -> None:
    """Print the table of requests of one PNG, over MANY connections and over one connection."""
    print(f"\nOne image a request, embed, {MANY} connections and then 1:\n")
    print_row(
        "",
        f"requests/s, {MANY}",
        "p50 ms",
        "p99 ms",
        f"× {FASTAPI}",
        f"× {LITSERVE}",
        "CPU, µs",
        "over the encoder's",
        "requests/s, 1",
        "p50 ms",
        "p99 ms",
    )
    print_row(*["---"] * 11)
    for name in names:
        many, one = figures["many", name], figures["one", name]
        print_row(
            name,
            rate(many),
            *latencies(many),
            *(ratio(figures, name, peer) for peer in (FASTAPI, LITSERVE)),
            f"{statistics.median(load.cpu_us for load in many):,.0f}",
            over_encoder(figures, name),
            rate(one),
            *latencies(one),
        )


def print_footprint(figures: Figures, names: Iterable[str]) -> None:
    """Print the table of what a service needs before anybody asks it anything."""
    print("\nTo the first right answer, and memory at rest, before and after all loads:\n")
    print_row("", "ready, s", "MB before", "MB after")
    print_row(*["---"] * 4)
    for name in names:
        ready, *memory = (
            statistics.median(figures[what, name]) for what in ("ready", "rest", "after")
        )
        print_row(name, f"{ready:.1f}", *(f"{size_mb:,.0f}" for size_mb in memory))


def print_plural(figures: Figures, names: Iterable[str]) -> None:
    """Print the table of requests of PLURAL images, beside the engine's own rate."""
    print(f"\n{PLURAL} images a request, embed, {FEW} connections; share of the bare engine:\n")
    print_row(
        "images/s", "bare engine", *(cell for form in FORMS for cell in (form, "share", "of CPU"))
    )
    print_row(*["---"] * 8)
    for name in names:
        bare = figures["bare", name]
        cells = [rate(bare, PLURAL)]
        for form in FORMS:
            own = figures[form, name]
            share = paired(own, bare, lambda a, b: a.rate / b.rate)
            of_cpu = paired(bare, own, lambda a, b: a.cpu_us / b.cpu_us)
            cells += [rate(own, PLURAL), f"{share:.2f}", f"{of_cpu:.2f}"]
        print_row(name, *cells)


def print_mixed(figures: Figures, names: Iterable[str]) -> None:
    """Print the table of single images, alone and beside a caller of large requests."""
    print(f"\nOne image a request, {STRANGERS} a second, beside a caller of {LARGE:,} as npy:\n")
    print_row("", "alone p50 ms", "p99 ms", "beside p50 ms", "p99 ms", "large, images/s")
    print_row(*["---"] * 6)
    for name in names:
        for endpoint in ("embed", "reconstruct"):
            alone, beside, large = (
                figures[f"{endpoint} {what}", name] for what in ("alone", "beside", "large")
            )
            print_row(
                f"{name} {endpoint}",
                *latencies(alone),
                *latencies(beside),
                rate(large, LARGE),
            )


def print_row(*cells: str) -> None:
    """One line of a table."""
    print(f"| {' | '.join(cells)} |")


def rate(loads: list[Load], images: int = 1) -> str:
    """The median rate times ``images``; marked if a round is invalid."""
    mark = " INVALID" if any(load.faults for load in loads) else ""
    return f"{statistics.median(load.rate for load in loads) * images:,.0f}{mark}"


def latencies(loads: list[Load]) -> tuple[str, str]:
    """The medians of p50 and p99 in ms."""
    p50_ms = statistics.median(load.p50_ms for load in loads)
    p99_ms = statistics.median(load.p99_ms for load in loads)
    return f"{p50_ms:,.2f}", f"{p99_ms:,.2f}"


def ratio(figures: Figures, name: str, peer: str) -> str:
    """The rate over that of a peer, with MANY connections; a dash if no peer was measured."""
    if ("many", peer) not in figures:
        return "–"
    found = paired(figures["many", name], figures["many", peer], lambda a, b: a.rate / b.rate)
    return f"{found:.2f}"


def over_encoder(figures: Figures, name: str) -> str:
    """What a request costs more than the encoder's arithmetic; a dash where that isn't measured."""
    if ("encoder", name) not in figures:
        return "–"
    own, encoder = figures["many", name], figures["encoder", name]
    return f"{paired(own, encoder, lambda a, b: a.cpu_us - b.cpu_us / PLURAL):+,.0f}"


def paired(own: list[Load], other: list[Load], compare: Callable[[Load, Load], float]) -> float:
    """The median over the rounds of ``compare`` for the two loads of a round."""
    return statistics.median(compare(a, b) for a, b in zip(own, other, strict=True))
