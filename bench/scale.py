"""Where each curve bends: images a request, connections, processes, threads, width, image size.

    python -m bench.scale build/mnist --plot docs/pictures/scale.svg      # or: make bench-scale

What a request carries, and who sends it, is asked of the service on Granian; how many threads
compute, and on what, of onnxruntime alone, 256 images a call. Networks of other widths and image
sizes are untrained, for weights don't change the speed. Medians of the rounds.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from bench import wrk
from bench.contenders import Running, find_contender, running
from bench.limit import best_of
from bench.loads import command_line, npy_request
from bench.plots import draw_curves
from bench.tables import FEW, LARGE, MANY, PLURAL, machine, print_table
from export.graphs import to_onnx, write_graph
from serve.bundle.engine.host import usable_cores
from serve.bundle.manifest import Bundle, load_bundle
from train.config import TrainConfig
from train.model import Autoencoder

COUNTS = (1, 4, 16, 64, PLURAL, 1_024, LARGE)  # images a request
CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PROCESSES = (1, 2, 4)
WIDTHS = (2, 8, 32, 128, 512)  # numbers in an embedding
SIDES = (28, 56, 112, 224)  # pixels

Curves = dict[str, dict[int, list[float]]]  # what is varied → its values → images/s of each round


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = command_line("bench.scale", str(__doc__))
    parser.add_argument("--plot", type=Path, help="an .svg or .png file for the curves")
    options = parser.parse_args(arguments)
    bundle, curves = load_bundle(options.bundle.resolve()), Curves()
    with tempfile.TemporaryDirectory() as folder:
        encoders = write_encoders(Path(folder))
        for _ in range(options.rounds):
            for title, value, rate in measure_all(bundle, encoders, options.seconds):
                curves.setdefault(title, {}).setdefault(value, []).append(rate)
                print(f"{title} {value}: {rate:,.0f} images/s", file=sys.stderr, flush=True)
    report(curves)
    if options.plot:
        draw_curves(curves, options.plot)
    return 0


def measure_all(
    bundle: Bundle, encoders: dict[tuple[str, int], Path], seconds: float
) -> Iterator[tuple[str, int, float]]:
    """What is varied, its value, and images/s, for all curves."""
    for processes in PROCESSES:
        contender = find_contender("granian", bundle, ["--processes", str(processes)])
        with (
            tempfile.TemporaryDirectory() as folder,
            running(contender, bundle, Path(folder)) as service,
        ):
            wrk.measure(service.single, MANY, seconds)  # to warm up
            yield "processes", processes, wrk.measure(service.single, MANY, seconds).rate
            if processes == 1:
                yield from measure_requests(service, bundle, Path(folder), seconds)
    for threads in range(1, 2 * usable_cores() + 1):
        yield "threads", threads, encoder_rate(bundle.folder / "encoder.onnx", threads)
    for (title, value), path in encoders.items():
        yield title, value, encoder_rate(path, usable_cores())


def measure_requests(
    service: Running, bundle: Bundle, folder: Path, seconds: float
) -> Iterator[tuple[str, int, float]]:
    """The curves of one service: who asks, and for how much."""
    for connections in CONNECTIONS:
        yield "connections", connections, wrk.measure(service.single, connections, seconds).rate
    for count in COUNTS:
        target = npy_request(service, bundle, "embed", count, folder)
        yield "images a request", count, wrk.measure(target, FEW, seconds).rate * count


def write_encoders(folder: Path) -> dict[tuple[str, int], Path]:
    """(what is varied, its value) → the ONNX file of an untrained encoder."""
    configs = {("embedding width", width): TrainConfig(output_dim=width) for width in WIDTHS}
    configs |= {("image side", side): TrainConfig(image_size=side) for side in SIDES}
    paths = {}
    for (title, value), config in configs.items():
        images = torch.zeros(2, 1, config.image_size, config.image_size, dtype=torch.uint8)
        graph = to_onnx(Autoencoder(config).encoder, images, "images", "embeddings", title)
        paths[title, value] = folder / f"{title} {value}.onnx"
        write_graph(graph, paths[title, value])
    return paths


def encoder_rate(path: Path, threads: int) -> float:
    """Images/s of onnxruntime alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    images = np.zeros((PLURAL, *given.shape[1:]), np.uint8)
    return PLURAL / best_of(lambda: session.run(None, {"images": images}))


def report(curves: Curves) -> None:
    """Print a table for each curve."""
    print(machine("onnxruntime"))
    for title, curve in curves.items():
        medians = {value: statistics.median(rates) for value, rates in curve.items()}
        print(f"\n{title}:\n")
        print_table(
            [title, *(f"{value:,}" for value in medians)],
            [["images/s", *(f"{rate:,.0f}" for rate in medians.values())]],
        )


if __name__ == "__main__":
    sys.exit(main())
