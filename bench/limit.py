"""What these cores can do at all, and which share of it each way to embed uses.

    python -m bench.limit build/mnist          # or: make bench-limit

The limit is arithmetic: how many operations of an image's the cores do in a second where they do
nothing else. PyTorch multiplies two large matrices, and runs a convolution as wide as the encoder's
own, both in fp32 and on all cores, and the best try of all rounds counts. An image's operations are
counted in the encoder's layers (a multiplication and an addition are two). The ways are measured in
the same run, as bench.online and bench.jobs have them; medians of the rounds.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import jobs, wrk
from bench.contenders import SERVERS, find_contender, running
from bench.engines import sessions
from bench.loads import command_line, measure_engine, npy_request, pictures
from bench.tables import FEW, MANY, PLURAL, machine, print_table
from serve.bundle.engine.host import usable_cores
from serve.bundle.manifest import Bundle, load_bundle

SIDE = 2_048  # of the matrices
CHANNELS, GRID, BATCH = 64, 28, 64  # of the convolution: the encoder's, on the largest grid
MEASURED_S = 2.0  # for each limit and each engine
IMAGES = 20_000  # of a job
GIGA = 1e9
LIMITS = ("matrices", "convolution")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = command_line("bench.limit", str(__doc__)).parse_args(arguments)
    bundle = load_bundle(options.bundle.resolve())
    torch.set_num_threads(usable_cores())
    rounds = [measure_all(bundle, options.seconds) for _ in range(options.rounds)]
    report(rounds, count_operations(bundle))
    return 0


def count_operations(bundle: Bundle) -> float:
    """The encoder's operations for one image, additions and multiplications alike."""
    model = torch.jit.load(bundle.folder / "autoencoder.ts")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.encode(torch.from_numpy(pictures(bundle, 1)))
    return counter.get_total_flops()


def measure_all(bundle: Bundle, seconds: float) -> dict[str, float]:
    """Way → images/s; for the two limits, operations/s."""
    plain = sessions(bundle.folder, quiet=True)["embed"]
    images = pictures(bundle, PLURAL)
    return {
        "matrices": matrices(),
        "convolution": convolution(),
        "onnxruntime alone, 256 a call": PLURAL / best_of(lambda: plain(images)),
        "this engine, 256 a call": measure_engine(bundle, usable_cores(), seconds).rate * PLURAL,
        **measure_servers(bundle, seconds),
        **measure_jobs(bundle),
    }


@torch.inference_mode()
def matrices() -> float:
    """Operations/s of a product of two matrices."""
    left, right = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    return 2 * SIDE**3 / best_of(lambda: left @ right)


@torch.inference_mode()
def convolution() -> float:
    """Operations/s of one layer as the encoder's second, but on every pixel."""
    layer = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1).to(memory_format=torch.channels_last)
    given = torch.rand(BATCH, CHANNELS, GRID, GRID).to(memory_format=torch.channels_last)
    return 2 * BATCH * GRID**2 * CHANNELS**2 * 9 / best_of(lambda: layer(given))


def best_of(call: Callable[[], object]) -> float:
    """The shortest time that a call took, in seconds."""
    call()
    best, end = float("inf"), time.perf_counter() + MEASURED_S
    while (started := time.perf_counter()) < end:
        call()
        best = min(best, time.perf_counter() - started)
    return best


def measure_servers(bundle: Bundle, seconds: float) -> dict[str, float]:
    """Both servers, asked for many images a request and for one."""
    found = {}
    for name in SERVERS:
        with (
            tempfile.TemporaryDirectory() as folder,
            running(find_contender(name, bundle), bundle, Path(folder)) as service,
        ):
            wrk.measure(service.single, MANY, service.contender.warm_up_s)
            many = npy_request(service, bundle, "embed", PLURAL, Path(folder))
            found[f"{name}, {PLURAL} a request"] = wrk.measure(many, FEW, seconds).rate * PLURAL
            found[f"{name}, a PNG a request"] = wrk.measure(service.single, MANY, seconds).rate
    return found


def measure_jobs(bundle: Bundle) -> dict[str, float]:
    """Jobs in one process, start-up and all."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        images = pictures(bundle, IMAGES)
        # A job embeds equal images once, so each image's first four values hold its number.
        numbers = np.arange(IMAGES, dtype="<u4").view(np.uint8)
        images.reshape(IMAGES, -1)[:, :4] = numbers.reshape(IMAGES, 4)
        sources = jobs.write_sources(Path(folder), images)
        for way in (jobs.ARRAY, jobs.FILES):
            seconds, _ = jobs.run(jobs.command(way, bundle, sources, None), bundle)
            found[f"pinhole embed, {way}"] = len(images) / seconds
    return found


def report(rounds: list[dict[str, float]], operations: float) -> None:
    """Print the table."""
    median = {way: statistics.median(each[way] for each in rounds) for way in rounds[0]}
    limits = {name: max(each[name] for each in rounds) for name in LIMITS}
    print(f"{machine('torch', 'onnxruntime')}; an image takes {operations / 1e6:.1f} million")
    print("operations. The cores do, in billions a second:", end=" ")
    print(", ".join(f"{rate / GIGA:,.0f} ({name})" for name, rate in limits.items()), end=":\n\n")
    print_table(
        ["", "images/s", *(f"share of the limit by {name}" for name in limits)],
        (
            [way, f"{rate:,.0f}", *(f"{rate * operations / each:.2f}" for each in limits.values())]
            for way, rate in median.items()
            if way not in LIMITS
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
