"""What bench.online found, as markdown tables."""

import platform
import statistics
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import onnxruntime

from bench.contenders import FASTAPI, LITSERVE, NOTHING
from bench.wrk import Load
from serve.bundle.engine.host import usable_cores

MANY = 64  # connections that send single images
FEW = 4  # connections that send plural requests
STRANGERS = 100  # requests a second from independent callers, with one image each
PLURAL = 256  # images in a plural request
LARGE = 4_096  # images in the largest request that the service takes

Figures = dict[tuple[str, str], list[Load]]  # (what, contender) → a load for each round


def print_report(figures: Figures, serve_args: str) -> None:
    """Print the tables, and the faults that make a figure invalid."""
    print(f"{machine()}; python -m serve {serve_args or 'as it comes'}")
    for marker, print_table in (
        ("many", print_single),
        ("bare", print_plural),
        ("embed alone", print_mixed),
    ):
        names = [name for what, name in figures if what == marker]
        if names:
            print_table(figures, names)
    for (what, name), loads in figures.items():
        for number, load in enumerate(loads, 1):
            if load.faults:
                print(f"\nINVALID: {name}, {what}, round {number}: {dict(load.faults)}")


def machine() -> str:
    """The processor and the versions of this run."""
    versions = [f"onnxruntime {onnxruntime.__version__}"]
    versions += [
        f"{package} {version(package)}"
        for package in ("torchserve", "fastapi", "uvicorn", "litserve")
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
        f"× {NOTHING}",
        "requests/s, 1",
        "p50 ms",
        "p99 ms",
        f"p50 over {NOTHING}'s, ms",
    )
    print_row(*["---"] * 11)
    for name in names:
        print_row(
            name,
            rate(figures["many", name]),
            *latencies(figures["many", name]),
            *(ratio(figures, name, peer) for peer in (FASTAPI, LITSERVE, NOTHING)),
            rate(figures["one", name]),
            *latencies(figures["one", name]),
            gap(figures, name),
        )


def print_plural(figures: Figures, names: Iterable[str]) -> None:
    """Print the table of requests of PLURAL images, beside the engine's own rate."""
    print(f"\n{PLURAL} images a request, embed, {FEW} connections; share of the bare engine:\n")
    print_row("images/s", "bare engine", "npy", "share", "OIP, binary", "share")
    print_row(*["---"] * 6)
    for name in names:
        bare = figures["bare", name]
        cells = [rate(bare, PLURAL)]
        for form in ("npy", "OIP"):
            own = figures[form, name]
            share = paired(own, bare, lambda a, b: a.rate / b.rate)
            cells += [rate(own, PLURAL), f"{share:.2f}"]
        print_row(name, *cells)


def print_mixed(figures: Figures, names: Iterable[str]) -> None:
    """Print the table of single images, alone and beside a caller of large requests."""
    print(f"\nOne image a request, {STRANGERS} a second, beside a caller of {LARGE:,} as npy:\n")
    print_row(
        "", "alone p50 ms", "p99 ms", "beside p50 ms", "p99 ms", "requests/s", "large, images/s"
    )
    print_row(*["---"] * 7)
    for name in names:
        for endpoint in ("embed", "reconstruct"):
            alone, beside, large = (
                figures[f"{endpoint} {what}", name] for what in ("alone", "beside", "large")
            )
            print_row(
                f"{name} {endpoint}",
                *latencies(alone),
                *latencies(beside),
                rate(beside),
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
    return f"{p50_ms:,.1f}", f"{p99_ms:,.1f}"


def ratio(figures: Figures, name: str, peer: str) -> str:
    """The rate over that of a peer, with MANY connections; a dash if no peer was measured."""
    if ("many", peer) not in figures:
        return "–"
    found = paired(figures["many", name], figures["many", peer], lambda a, b: a.rate / b.rate)
    return f"{found:.2f}"


def gap(figures: Figures, name: str) -> str:
    """The p50 over one connection, minus TorchServe's with a handler that does nothing."""
    if ("one", NOTHING) not in figures:
        return "–"
    own, nothing = figures["one", name], figures["one", NOTHING]
    return f"{paired(own, nothing, lambda a, b: a.p50_ms - b.p50_ms):+.1f}"


def paired(own: list[Load], other: list[Load], compare: Callable[[Load, Load], float]) -> float:
    """The median over the rounds of ``compare`` for the two loads of a round."""
    return statistics.median(compare(a, b) for a, b in zip(own, other, strict=True))
