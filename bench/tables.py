"""What a benchmark found, as markdown tables, and the line that says where it was found."""

import platform
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from bench.environments import versions
from bench.wrk import Load
from serve.bundle.engine.host import usable_cores

CONNECTIONS = (1, 8, 64, 256)  # that send single images
MANY = 64  # of them, where one figure has to do
FEW = 4  # connections that send plural requests or photographs
PAIR = 2  # connections that send LARGE requests, so that both cores are busy
STRANGERS = 100  # requests a second from independent callers, with one image each
PLURAL = 256  # images in a plural request
LARGE = 4_096  # images in the largest request that the service takes
ENGINE = "bare engine"
BASELINE = "fastapi"

# (what, contender) → a Load for each round; for "ready", "disk", "rest" and "after" a number of s
# or MB.
Figures = dict[tuple[str, str], list[Any]]


def print_report(figures: Figures, left_out: Mapping[str, str], serve_args: str) -> None:
    """Print the tables, who was left out, and the faults that make a figure invalid."""
    print(f"{machine('onnxruntime')}, {versions()}; python -m serve {serve_args or 'as it comes'}")
    for marker, print_section in (
        (f"single {MANY}", print_single),
        ("rest", print_footprint),
        (f"plural {PLURAL}", print_plural),
        ("2 MP", print_photographs),
        ("embed alone", print_mixed),
    ):
        names = [name for what, name in figures if what == marker]
        if names:
            print_section(figures, names)
    for name, why in left_out.items():
        print(f"\nLeft out: {name}: {why}")
    for fault in faults(figures):
        print(f"\nINVALID: {fault}")


def faults(figures: Figures) -> Iterator[str]:
    """The loads that are invalid, and why."""
    for (what, name), found in figures.items():
        for number, figure in enumerate(found, 1):
            if isinstance(figure, Load) and figure.faults:
                yield f"{name}, {what}, round {number}: {dict(figure.faults)}"


def machine(*packages: str) -> str:
    """The processor, its instructions for bf16, and the versions of packages."""
    versions = "".join(f", {package} {version(package)}" for package in packages)
    return f"{usable_cores()} cores of {processor()}{versions}"


def processor() -> str:
    """The processor's name and its instructions for bf16, where Linux tells them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    fast = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return f"{(names or [platform.machine()])[0]} ({' '.join(fast) or 'no bf16'})"


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A markdown table, each row as soon as it is there."""
    for row in chain((head, ["---"] * len(head)), rows):
        print(f"| {' | '.join(row)} |", flush=True)


def print_single(figures: Figures, names: Sequence[str]) -> None:
    """Requests of one PNG over CONNECTIONS, the fastest over MANY first."""
    ranked = sorted(names, key=lambda name: -median_rate(figures[f"single {MANY}", name]))
    loads = {name: [figures[f"single {count}", name] for count in CONNECTIONS] for name in ranked}
    print(f"\nOne image a request, embed: requests/s, and a request's CPU on {MANY} connections:\n")
    head = ["connections", *map(str, CONNECTIONS), f"× {BASELINE}, {MANY}"]
    print_table(
        [*head, "CPU, µs", "over the encoder's"],
        (
            [
                name,
                *map(rate, loads[name]),
                ratio(figures, name),
                f"{cpu_us(figures[f'single {MANY}', name]):,.0f}",
                over_encoder(figures, name),
            ]
            for name in ranked
        ),
    )
    print("\nThe same, p50 / p99 in ms:\n")
    print_table(head[:-1], ([name, *map(latencies, loads[name])] for name in ranked))


def print_footprint(figures: Figures, names: Iterable[str]) -> None:
    """What a service needs before anybody asks it anything."""
    print("\nTo the first right answer; memory at rest, before and after all loads; environment:\n")
    print_table(
        ["", "ready, s", "MB before", "MB after", "MB on disk"],
        (
            [
                name,
                f"{statistics.median(figures['ready', name]):.1f}",
                *(
                    f"{statistics.median(figures[what, name]):,.0f}"
                    for what in ("rest", "after", "disk")
                ),
            ]
            for name in names
        ),
    )


def print_plural(figures: Figures, names: Iterable[str]) -> None:
    """Requests of many images, beside the engine's own rate."""
    bare, forms = figures["bare", ENGINE], {f"{PLURAL}": PLURAL, f"{LARGE}": LARGE, "OIP": PLURAL}
    print(
        f"\nMany images a request, embed, {FEW} connections ({PAIR} for {LARGE:,}): images/s, and"
    )
    print(f"share of the bare engine's {median_rate(bare) * PLURAL:,.0f}:\n")
    rows = []
    for name in names:
        row = [name]
        for form, images in forms.items():
            own = figures.get((f"plural {form}", name))
            row += [rate(own, images), share(own, bare, images)] if own else ["–", "–"]
        rows.append(row)
    heads = (f"{PLURAL} as npy", f"{LARGE:,} as npy", f"{PLURAL} as OIP")
    print_table(["", *(cell for head in heads for cell in (head, "share"))], rows)


def print_photographs(figures: Figures, names: Iterable[str]) -> None:
    """Requests of one photograph."""
    print(f"\nOne photograph (JPEG) a request, {FEW} connections; p50 / p99 in ms:\n")
    sizes = ("2 MP", "12 MP")
    print_table(
        ["", *(cell for size in sizes for cell in (f"{size}: requests/s", "ms", "CPU, ms"))],
        (
            [
                name,
                *(
                    cell
                    for size in sizes
                    for cell in (
                        rate(figures[size, name], digits=1),
                        latencies(figures[size, name]),
                        f"{cpu_us(figures[size, name]) / 1e3:.1f}",
                    )
                ),
            ]
            for name in names
        ),
    )


def print_mixed(figures: Figures, names: Iterable[str]) -> None:
    """Single images, alone and beside a caller of large requests."""
    print(f"\nOne image a request, {STRANGERS} a second, beside a caller of {LARGE:,} as npy;")
    print("p50 / p99 in ms:\n")
    rows = []
    for name in names:
        for endpoint in ("embed", "reconstruct"):
            alone, beside, large = (
                figures[f"{endpoint} {what}", name] for what in ("alone", "beside", "large")
            )
            row = [latencies(alone), latencies(beside), rate(large, LARGE)]
            rows.append([f"{name} {endpoint}", *row])
    print_table(["", "alone", "beside", "large, images/s"], rows)


def median_rate(loads: list[Load]) -> float:
    """Answers a second."""
    return statistics.median(load.rate for load in loads)


def rate(loads: list[Load], images: int = 1, digits: int = 0) -> str:
    """The median rate times ``images``; marked if a round is invalid."""
    mark = " INVALID" if any(load.faults for load in loads) else ""
    return f"{median_rate(loads) * images:,.{digits}f}{mark}"


def cpu_us(loads: list[Load]) -> float:
    """Microseconds of one core for each answer."""
    return statistics.median(load.cpu_us for load in loads)


def latencies(loads: list[Load]) -> str:
    """The medians of p50 and p99 in ms."""
    p50_ms = statistics.median(load.p50_ms for load in loads)
    p99_ms = statistics.median(load.p99_ms for load in loads)
    return f"{p50_ms:,.1f} / {p99_ms:,.1f}"


def ratio(figures: Figures, name: str) -> str:
    """The rate over the baseline's, with MANY connections; a dash if that wasn't measured."""
    own, other = figures[f"single {MANY}", name], figures.get((f"single {MANY}", BASELINE))
    return f"{paired(own, other, lambda a, b: a.rate / b.rate):.2f}" if other else "–"


def over_encoder(figures: Figures, name: str) -> str:
    """What a request costs more than the encoder's arithmetic, in µs of a core."""
    own, encoder = figures[f"single {MANY}", name], figures["encoder", ENGINE]
    return f"{paired(own, encoder, lambda a, b: a.cpu_us - b.cpu_us / PLURAL):+,.0f}"


def share(own: list[Load], bare: list[Load], images: int) -> str:
    """The rate of images over the bare engine's."""
    return f"{paired(own, bare, lambda a, b: a.rate * images / (b.rate * PLURAL)):.2f}"


def paired(own: list[Load], other: list[Load], compare: Callable[[Load, Load], float]) -> float:
    """The median over the rounds of ``compare`` for the two loads of a round."""
    return statistics.median(compare(a, b) for a, b in zip(own, other, strict=True))
