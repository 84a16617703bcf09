"""Requests a second of the service, beside what its users would pick instead, in one run.

    python -m bench.online build/mnist          # or: make bench-online

The contenders take turns. Each is installed into an environment of its own when it is first needed
(bench/environments.py), started, warmed up, checked for a right answer, measured and stopped, alone
on the machine except for wrk, which makes the load. bench/peers/ holds the code of the peers:

    fastapi, litserve, bentoml, ray-serve, mlserver, triton, torchserve-bare

and these are this project's:

    granian, torchserve   python -m serve, onnxruntime's CPU provider in fp32
    granian-2             granian with --processes 2
    granian-bf16          granian with OpenVINO in bf16, where the processor has it
    granian-nothing       granian with an engine that computes nothing: the most a process answers
    … + nginx             the same service behind the gateway, where nginx is installed

CPU time and memory are those of all processes of a contender, without the load generator's. The
results are the medians over the rounds, and of each round's own ratios. A contender that can't be
installed or started is left out, with a line that says why. An answer that isn't 2xx, or that
doesn't come, makes a figure invalid: the figure is marked, and the exit code is 1.
"""

import argparse
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench import wrk
from bench.contenders import NAMES, SERVERS, find_contender, running
from bench.environments import size_mb
from bench.gateway import gateway, has_nginx
from bench.loads import (
    SHORTER,
    Measured,
    command_line,
    measure_engine,
    measure_mixed,
    measure_photographs,
    measure_plural,
    measure_single,
)
from bench.plots import draw_requests
from bench.tables import ENGINE, MANY, Figures, faults, print_report
from bench.wrk import Load
from serve.bundle.engine.host import usable_cores
from serve.bundle.errors import ServeError
from serve.bundle.manifest import Bundle, load_bundle

SECTIONS = ("single", "gateway", "plural", "photographs", "mixed")
REST_S = 2.0  # without requests, before memory is measured

EXAMPLES = """
examples:
  python -m bench.online build/mnist
  python -m bench.online build/mnist --only granian fastapi --serve-args="--workers 2"
  python -m bench.online build/mnist --rounds 1 --seconds 1 --sections single
  python -m bench.online build/mnist --plot docs/pictures/requests.png

A full run takes half an hour, and the first one some ten minutes more, to install the peers. It
needs wrk (apt-get install wrk), and a machine with nothing else to do.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every finally runs
    try:
        wrk.find_wrk()
        figures, left_out = race(load_bundle(options.bundle.resolve()), options)
    except (OSError, ServeError, subprocess.SubprocessError) as error:
        print(f"bench.online: {error}", file=sys.stderr)
        return 1
    print_report(figures, left_out, options.serve_args)
    if options.plot:
        draw_requests(figures, options.plot)
    return 1 if any(faults(figures)) else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = command_line(
        "bench.online",
        "Requests a second of the service, beside what its users would pick instead.",
    )
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        default=SECTIONS,
        metavar="SECTION",
        help=", ".join(SECTIONS),
    )
    parser.add_argument(
        "--serve-args",
        default="",
        help='options of python -m serve, e.g. "--workers 2"; not runtime, device or precision',
    )
    parser.add_argument("--plot", type=Path, help="an .svg or .png file for requests/s")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    return options


def race(bundle: Bundle, options: argparse.Namespace) -> tuple[Figures, dict[str, str]]:
    """Measure each contender in turn, round by round; returns who was left out, and why, too."""
    figures: Figures = {}
    left_out = {} if has_nginx() else {"nginx": "it isn't installed: apt-get install nginx"}
    for number in range(1, options.rounds + 1):
        tell(f"round {number} of {options.rounds}")
        for threads, what in ((1, "encoder"), (usable_cores(), "bare")):
            load = measure_engine(bundle, threads, options.seconds * SHORTER)
            figures.setdefault((what, ENGINE), []).append(load)
        for name in (name for name in options.only if name not in left_out):
            try:
                for who, what, figure in measure_contender(name, bundle, options):
                    figures.setdefault((what, who), []).append(figure)
                    tell(f"{who}: {what}: {describe(figure)}")
            except (
                RuntimeError,
                ValueError,
                OSError,
                subprocess.SubprocessError,
                psutil.Error,
            ) as error:
                left_out[name] = str(error)
                tell(f"{name}: left out: {error}")
                figures = {
                    (what, who): found
                    for (what, who), found in figures.items()
                    if who.partition(" ")[0] != name
                }
    return figures, left_out


def describe(figure: Load | float) -> str:
    """A figure in one line."""
    if isinstance(figure, float):
        return f"{figure:,.2f}"
    cpu = f", {figure.cpu_us:,.0f} µs of CPU each" if figure.cpu_s else ""
    invalid = f", INVALID: {dict(figure.faults)}" if figure.faults else ""
    return (
        f"{figure.rate:,.1f}/s, p50 {figure.p50_ms:,.2f} ms, p99 {figure.p99_ms:,.2f} ms"
        f"{cpu}{invalid}"
    )


def tell(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


def measure_contender(name: str, bundle: Bundle, options: argparse.Namespace) -> Measured:
    """Start a contender and stop it; in between, yield its figures.

    Raises:
        RuntimeError: it can't be installed or started here.
        ValueError: its answers are wrong.
    """
    contender = find_contender(name, bundle, shlex.split(options.serve_args))
    seconds, sections = options.seconds, options.sections
    with (
        tempfile.TemporaryDirectory() as folder,
        running(contender, bundle, Path(folder)) as service,
    ):
        yield name, "ready", service.ready_s
        yield name, "disk", size_mb(contender.environment)
        time.sleep(REST_S)
        yield name, "rest", service.memory_mb()
        wrk.measure(service.single, MANY, contender.warm_up_s)
        if "single" in sections:
            yield from measure_single(name, service, service.single, seconds)
        if "photographs" in sections:
            yield from measure_photographs(service, bundle, seconds * SHORTER)
        if name in SERVERS and "gateway" in sections and has_nginx():
            with gateway(service, Path(folder)) as single:
                yield from measure_single(f"{name} + nginx", service, single, seconds)
        if name in (*SERVERS, "fastapi") and "plural" in sections:
            yield from measure_plural(service, bundle, Path(folder), seconds * SHORTER)
        if name in SERVERS and "mixed" in sections:
            yield from measure_mixed(service, bundle, Path(folder), seconds)
        time.sleep(REST_S)
        yield name, "after", service.memory_mb()


if __name__ == "__main__":
    sys.exit(main())
