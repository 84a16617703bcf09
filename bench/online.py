"""Requests a second of the service, beside what its users would write instead, in one run.

    python -m bench.online build/mnist          # or: make bench-online

The contenders take turns. Each is started, warmed up, checked for a right answer, measured and
stopped, alone on the machine except for wrk, which makes the load:

    litserve       uvicorn, dynamic batching, Pillow and onnxruntime
    fastapi        uvicorn with a process for each core, Pillow and onnxruntime
    granian        python -m serve --server granian, onnxruntime's CPU provider in fp32
    granian-2      the same with --processes 2
    torchserve     the same with --server torchserve
    …-bf16         both with OpenVINO in bf16, where onnxruntime and the processor have it
    …-nothing      granian with an engine that computes nothing: the most that one process answers

CPU time is that of all processes of a contender, without the load generator's. The encoder's own is
that of an engine of one thread, alone. The results are the medians over the rounds, and of each
round's own ratios. An answer that isn't
2xx, or that doesn't come, makes a figure invalid: the figure is marked, and the exit code is 1.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import strangers, wrk
from bench.contenders import NAMES, Contender, Running, ask, contenders, running
from bench.tables import FEW, LARGE, MANY, PLURAL, STRANGERS, Figures, faults, print_report
from bench.wrk import Load, Target
from serve.bundle.engine.host import usable_cores
from serve.bundle.engine.opening import open_engine
from serve.bundle.errors import ServeError
from serve.bundle.manifest import Bundle, load_bundle

SECTIONS = ("single", "plural", "mixed")
ROUNDS = 3
SECONDS = 8.0
SHORTER = 5 / 8  # share of SECONDS for loads that settle sooner
REST_S = 2.0  # without requests, before memory is measured
HEAD_START_S = 1.0  # that the large requests run before the small requests begin
NPY = "application/x-npy"

EXAMPLES = """
examples:
  python -m bench.online build/mnist
  python -m bench.online build/mnist --serve-args="--workers 2" --only granian granian-nothing
  python -m bench.online build/mnist --rounds 1 --seconds 2 --sections single

A full run takes 50 minutes. It needs wrk (apt-get install wrk), and a machine with
nothing else to do.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that every finally runs
    try:
        wrk.find_wrk()
        bundle = load_bundle(options.bundle.resolve())
        figures = race(choose(bundle, options), bundle, options)
    except (OSError, RuntimeError, ServeError, ValueError, subprocess.SubprocessError) as error:
        print(f"bench.online: {error}", file=sys.stderr)
        return 1
    print_report(figures, options.serve_args)
    return 1 if any(faults(figures)) else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.online",
        description="Requests a second of the service, beside what its users would write instead.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="folder that python -m export wrote")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        help="length of the load on 64 connections; scales the others too (default: %(default)s)",
    )
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
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    return options


def choose(bundle: Bundle, options: argparse.Namespace) -> list[Contender]:
    """The contenders that were asked for and can run here."""
    found = {each.name: each for each in contenders(bundle, shlex.split(options.serve_args))}
    for name in options.only:
        if name not in found:
            tell(f"{name}: left out, this host or this onnxruntime can't run it")
    return [contender for name, contender in found.items() if name in options.only]


def race(chosen: Sequence[Contender], bundle: Bundle, options: argparse.Namespace) -> Figures:
    """Start, measure and stop each contender in turn, round by round."""
    figures: Figures = {}
    for number in range(1, options.rounds + 1):
        tell(f"round {number} of {options.rounds}")
        for contender in chosen:
            for what, figure in measure_contender(contender, bundle, options):
                figures.setdefault((what, contender.name), []).append(figure)
                tell(f"{contender.name}: {what}: {describe(figure)}")
    return figures


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


def measure_contender(
    contender: Contender, bundle: Bundle, options: argparse.Namespace
) -> Iterator[tuple[str, Load | float]]:
    """Start a contender and stop it; in between, yield the name and the value of each figure."""
    seconds, sections = options.seconds, options.sections
    if contender.engine:
        yield "encoder", measure_engine(bundle, contender.engine, 1, seconds * SHORTER)
        yield "bare", measure_engine(bundle, contender.engine, usable_cores(), seconds * SHORTER)
    with tempfile.TemporaryDirectory() as name, running(contender, bundle, Path(name)) as service:
        yield "ready", service.ready_s
        time.sleep(REST_S)
        yield "rest", service.memory_mb()
        wrk.measure(service.single, MANY, contender.warm_up_s)
        if "single" in sections:
            yield "many", measure(service, service.single, MANY, seconds)
            yield "one", measure(service, service.single, 1, seconds * SHORTER)
        if contender.engine and "plural" in sections:
            yield from measure_plural(service, bundle, Path(name), seconds * SHORTER)
        if contender.engine and "mixed" in sections:
            yield from measure_mixed(service, bundle, Path(name), seconds)
        time.sleep(REST_S)
        yield "after", service.memory_mb()


def measure_engine(bundle: Bundle, engine: tuple[str, str], cores: int, seconds: float) -> Load:
    """An engine of one thread alone in this process, called with PLURAL images on each core."""
    opened = open_engine(bundle, "onnxruntime", *engine, threads=1)
    images, times_ms = pictures(bundle, PLURAL), list[float]()
    end = time.perf_counter() + seconds

    def call_again_and_again() -> None:
        while (before := time.perf_counter()) < end:
            opened.embed(images)
            times_ms.append((time.perf_counter() - before) * 1e3)

    started, cpu_s = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=call_again_and_again) for _ in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu_s, seconds = time.process_time() - cpu_s, time.perf_counter() - started
    p50_ms, p99_ms = np.percentile(times_ms, [50, 99])
    return Load(len(times_ms), seconds, float(p50_ms), float(p99_ms), cpu_s=cpu_s)


def measure(service: Running, target: Target, connections: int, seconds: float) -> Load:
    """A closed loop of requests, and what they cost the service's processes."""
    before_s = service.cpu_s()
    load = wrk.measure(target, connections, seconds)
    return replace(load, cpu_s=service.cpu_s() - before_s)


def pictures(bundle: Bundle, count: int) -> NDArray[np.uint8]:
    """uint8[count, C, H, W]: the golden images, again and again."""
    images = bundle.golden().images
    return np.resize(images, (count, *images.shape[1:]))


def measure_plural(
    service: Running, bundle: Bundle, folder: Path, seconds: float
) -> Iterator[tuple[str, Load]]:
    """Requests of PLURAL images over FEW connections, in two forms."""
    expected = np.resize(bundle.golden().embeddings, (PLURAL, bundle.manifest.embedding_width))
    for form, target in plural_requests(service, bundle, folder).items():
        raw = ask(target).content[-expected.nbytes :]  # an array comes last in both forms
        service.compare(np.frombuffer(raw, "<f4").reshape(expected.shape), expected)
        yield form, measure(service, target, FEW, seconds)


def plural_requests(service: Running, bundle: Bundle, folder: Path) -> dict[str, Target]:
    """Form → a request to embed PLURAL images, which is answered with an array too."""
    images = pictures(bundle, PLURAL)
    tensor = {
        "name": "images",
        "datatype": "UINT8",
        "shape": images.shape,
        "parameters": {"binary_data_size": images.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    body = folder / "images.oip"
    body.write_bytes(head + images.tobytes())
    return {
        "npy": npy_request(service, "embed", images, folder),
        "OIP": Target(
            f"{service.url}/v2/models/embed/infer",
            body,
            {
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(len(head)),
            },
        ),
    }


def npy_request(service: Running, endpoint: str, images: NDArray[np.uint8], folder: Path) -> Target:
    """A request with images as an array, which is answered with an array too."""
    body = folder / f"{len(images)}.npy"
    np.save(body, images)
    headers = {"Content-Type": NPY, "Accept": NPY}
    return Target(f"{service.url}/predictions/{endpoint}", body, headers)


def measure_mixed(
    service: Running, bundle: Bundle, folder: Path, seconds: float
) -> Iterator[tuple[str, Load]]:
    """Single images of independent callers, alone and beside one caller of LARGE requests."""
    images = pictures(bundle, LARGE)
    for endpoint in ("embed", "reconstruct"):
        small = service.post(f"/predictions/{endpoint}")
        yield f"{endpoint} alone", strangers.measure(small, STRANGERS, seconds * SHORTER)
        large_s = seconds / SHORTER + 2 * HEAD_START_S
        large = wrk.start(npy_request(service, endpoint, images, folder), 1, large_s)
        try:
            time.sleep(HEAD_START_S)
            beside = strangers.measure(small, STRANGERS, seconds / SHORTER)
        finally:
            large_load = wrk.finish(large, large_s)
        yield f"{endpoint} beside", beside
        yield f"{endpoint} large", large_load


if __name__ == "__main__":
    sys.exit(main())
