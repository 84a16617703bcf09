"""Images/s of every engine that this host has, and their ratios to bare onnxruntime, in one run.

    python -m bench.engines weights/mnist

The engines are the devices and precisions that ``available`` (opening.py) finds. Three peers are
session.run of onnxruntime's CPU provider in fp32:

    plain     the model as PyTorch exports it, with transposed convolutions; idle threads spin
    quiet     the same without spinning: in reconstruct, the threads of one session would spin on
              the cores that the other session needs
    bare      the bundle's graphs with the engine's own settings: shows what the engine's code costs

Engines and peers take turns for ROUNDS rounds. The results are the medians of the rates and of the
ratios in each round.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.tables import machine
from export.__main__ import export
from export.graphs import write_onnx
from serve.bundle.engine.host import usable_cores
from serve.bundle.engine.opening import RUNTIMES, available, open_engine
from serve.bundle.manifest import Bundle
from train.checkpoint import load_checkpoint

BATCHES = (64, 256)
ROUNDS = 9
MEASURED_S = 0.25  # for each candidate in each round
PEERS = ("plain", "quiet", "bare")
OPERATIONS = ("embed", "decode", "reconstruct")

Operation = Callable[[Any], Any]
Candidate = dict[str, Operation]  # name in OPERATIONS → what the candidate does


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.engines",
        description="Images/s of every engine of this host, beside bare onnxruntime.",
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("weights/mnist"))
    options = parser.parse_args(arguments)
    print(f"{machine()}, onnxruntime {onnxruntime.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(options.checkpoint, Path(folder) / "bundle", "1.0")
        candidates = dict(open_candidates(bundle, options.checkpoint, Path(folder)))
        for batch in BATCHES:
            print_table(batch, race(candidates, bundle, batch))
    return 0


def open_candidates(
    bundle: Bundle, checkpoint: Path, folder: Path
) -> Iterator[tuple[str, Candidate]]:
    """Open the peers, then every engine."""
    write_onnx(load_checkpoint(checkpoint).model, folder, rewrite=False)
    yield "plain", sessions(folder, quiet=False)
    yield "quiet", sessions(folder, quiet=True)
    yield "bare", sessions(bundle.folder, quiet=True)
    for runtime in RUNTIMES:
        for device, precision in available(runtime):
            if precision in bundle.manifest.tolerances:
                engine = open_engine(bundle, runtime, device, precision)
                yield f"{runtime} {device} {precision}", operations(engine.embed, engine.decode)


def sessions(folder: Path, quiet: bool) -> Candidate:
    """encoder.onnx and decoder.onnx in onnxruntime alone, with or without spinning."""
    options = onnxruntime.SessionOptions()
    if quiet:
        options.intra_op_num_threads = usable_cores()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    encoder, decoder = (
        onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
        for name in ("encoder.onnx", "decoder.onnx")
    )

    def embed(images: Any) -> Any:
        return encoder.run(["embeddings"], {"images": images})[0]

    def decode(embeddings: Any) -> Any:
        return decoder.run(["images"], {"embeddings": embeddings})[0]

    return operations(embed, decode)


def operations(embed: Operation, decode: Operation) -> Candidate:
    """Both operations, and what they make together."""
    return {"embed": embed, "decode": decode, "reconstruct": lambda images: decode(embed(images))}


def race(
    candidates: dict[str, Candidate], bundle: Bundle, batch: int
) -> dict[tuple[str, str], list[float]]:
    """(candidate, operation) → images/s in each round."""
    golden = bundle.golden()
    repeats = -(-batch // len(golden.images))
    images = np.concatenate([golden.images] * repeats)[:batch]
    embeddings = np.concatenate([golden.embeddings] * repeats)[:batch]
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for operation in OPERATIONS:
            given = embeddings if operation == "decode" else images
            for name, candidate in candidates.items():
                rate = measure(candidate[operation], given)
                rates.setdefault((name, operation), []).append(rate)
    return rates


def measure(operation: Operation, rows: Any) -> float:
    """Rows per second, after one call to warm up."""
    operation(rows)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < MEASURED_S:
        operation(rows)
        done += len(rows)
    return done / (time.perf_counter() - started)


def print_table(batch: int, rates: dict[tuple[str, str], list[float]]) -> None:
    """Print a line for each candidate: images/s, and the ratio to each peer's rate."""
    print(f"\nbatch {batch}: images/s (times {', '.join(PEERS)})")
    print(f"{'':<26}" + "".join(f"{operation:^29}" for operation in OPERATIONS))
    for name in dict.fromkeys(name for name, _ in rates):
        cells = []
        for operation in OPERATIONS:
            own = rates[name, operation]
            ratios = (
                statistics.median(a / b for a, b in zip(own, rates[peer, operation], strict=True))
                for peer in PEERS
            )
            words = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            cells.append(f"{statistics.median(own):>9,.0f} ({words})  ")
        print(f"{name:<26}" + "".join(cells))


if __name__ == "__main__":
    sys.exit(main())
