"""Engine speed beside bare onnxruntime, in one run: images/s, and ratios to two peers.

    python -m bench.engines weights/mnist

The peers, both as onnxruntime comes, on its CPU provider in fp32:

    bare      session.run on the graphs of the bundle: what the engine around them costs
    plain     session.run on the model as PyTorch exports it, transposed convolutions and all

and every engine that this host has: device and precision, as ``serve.engine.available`` finds
them. They take turns, ROUNDS times; medians of the rates and of each round's ratios count.
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

from export.__main__ import export
from export.graphs import write_onnx
from serve.bundle import Bundle
from serve.engine import RUNTIMES, Engine, available, open_engine, usable_cores
from train.checkpoint import load_checkpoint

BATCHES = (64, 256)
ROUNDS = 9
MEASURED_S = 0.25  # for one candidate in one round
OPERATIONS = ("embed", "decode", "reconstruct")

Operation = Callable[[Any], Any]
Candidate = dict[str, Operation]  # by OPERATIONS


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.engines",
        description="Images/s of every engine of this host, beside bare onnxruntime.",
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("weights/mnist"))
    options = parser.parse_args(arguments)
    print(f"{usable_cores()} cores of {processor()}, onnxruntime {onnxruntime.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(options.checkpoint, Path(folder) / "bundle", "1.0")
        candidates = dict(open_candidates(bundle, options.checkpoint, Path(folder)))
        for batch in BATCHES:
            print_table(batch, race(candidates, bundle, batch))
    return 0


def processor() -> str:
    """The processor's name and what it has for bf16, as Linux tells them."""
    lines = dict(
        (part.strip() for part in line.split(":", 1))
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if ":" in line
    )
    fast = [flag for flag in lines["flags"].split() if flag in ("avx512_bf16", "amx_bf16")]
    return f"{lines['model name']} ({' '.join(fast) or 'no bf16'})"


def open_candidates(
    bundle: Bundle, checkpoint: Path, folder: Path
) -> Iterator[tuple[str, Candidate]]:
    """The two peers, then every engine."""
    write_onnx(load_checkpoint(checkpoint).model, folder, rewrite=False)
    yield "plain", bare_sessions(folder)
    yield "bare", bare_sessions(bundle.folder)
    for runtime in RUNTIMES:
        for device, precision in available(runtime):
            if precision in bundle.manifest.tolerances:
                engine = open_engine(bundle, runtime, device, precision)
                yield f"{runtime} {device} {precision}", operations(engine)


def bare_sessions(folder: Path) -> Candidate:
    """encoder.onnx and decoder.onnx as onnxruntime opens them by itself."""
    encoder, decoder = (
        onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        for name in ("encoder.onnx", "decoder.onnx")
    )

    def embed(images: Any) -> Any:
        return encoder.run(["embeddings"], {"images": images})[0]

    def decode(embeddings: Any) -> Any:
        return decoder.run(["images"], {"embeddings": embeddings})[0]

    return {"embed": embed, "decode": decode, "reconstruct": lambda images: decode(embed(images))}


def operations(engine: Engine) -> Candidate:
    """What an engine does."""
    return {
        "embed": engine.embed,
        "decode": engine.decode,
        "reconstruct": lambda images: engine.decode(engine.embed(images)),
    }


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
    """One line for each candidate: images/s, times the plain and the bare peer's rate."""
    print(f"\nbatch {batch}: images/s (times plain, times bare)")
    print(f"{'':<25}" + "".join(f"{operation:^25}" for operation in OPERATIONS))
    for name in dict.fromkeys(name for name, _ in rates):
        cells = []
        for operation in OPERATIONS:
            own = rates[name, operation]
            plain, bare = (
                statistics.median(a / b for a, b in zip(own, rates[peer, operation], strict=True))
                for peer in ("plain", "bare")
            )
            cells.append(f"{statistics.median(own):>9,.0f} ({plain:4.2f}, {bare:4.2f})  ")
        print(f"{name:<25}" + "".join(cells))


if __name__ == "__main__":
    sys.exit(main())
