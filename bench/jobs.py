"""Batch jobs beside what limits them, in one run: 70,000 MNIST images as files and as one array.

    python -m bench.jobs build/mnist

Each round measures the limits before and after the jobs, and takes the mean. The results are the
medians over the rounds. The limits:

    R    reading: files to pixels, in as many processes as there are cores
    E    the engine alone, on arrays, with all cores
    1/(1/R + 1/E)    what reading and then embedding would take, with nothing lost between

A job is the command ``pinhole`` in a process of its own. Its time includes start-up, listing,
hashing, Parquet and fsync, but not the interpreter's start. Its memory is the largest resident set.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.engines import processor
from serve.bundle.engine.host import usable_cores
from serve.bundle.engine.opening import open_engine
from serve.bundle.images import PixelBudget, read_image, write_png
from serve.bundle.manifest import Bundle, load_bundle
from train.data import load_dataset

FILES, ARRAY = "files, --local", "one array, --local"
HTTP, RAY = "files, over HTTP", "files, Ray on this host"
SCORED = "files, over HTTP, --score"
IMAGES = 70_000
FEW = 10_000
CALL = 256  # images in one call, where the engine alone is measured
KILLS = 20
# The job is started by a small process, which prints the job's largest resident set. Linux counts
# what a process was before exec, and the bench's own process has torch in it.
LAUNCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
SAME = 1e-6  # the greatest difference that is accepted, in standard deviations of the embeddings


@dataclass(frozen=True)
class Run:
    """The figures of one job.

    Attributes:
        rate: images/s, as _job.json has it.
        whole_rate: images/s of the process, from its start to its end.
        peak_mb: the process's largest resident set.
        share: rate over the limit in the same round: reading and engine together; for the array,
            the engine alone; over HTTP, the same job with --local; with --score, the same job
            without.
    """

    rate: float
    whole_rate: float
    peak_mb: float
    share: float = 0.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    bundle = load_bundle(options.bundle.resolve())
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        work = Path(name)
        images = load_images(options.images)
        files, few, array = write_sources(work, images)
        print(f"{usable_cores()} cores of {processor()}, {len(images):,} images", flush=True)
        rounds = [
            race(bundle, work, (files, few, array), images, options) for _ in range(options.rounds)
        ]
        print_table(rounds)
        if options.kills:
            kill_and_finish(bundle, work, files, images, options.kills)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.jobs", description="Batch jobs beside what limits them."
    )
    parser.add_argument("bundle", type=Path, help="folder that python -m export wrote")
    parser.add_argument("--url", help="service of the same bundle, for a job over HTTP")
    parser.add_argument("--ray", action="store_true", help="also run a job on Ray, on this host")
    parser.add_argument("--images", type=int, default=IMAGES, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--kills", type=int, default=KILLS, help="(default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for files (default: the system's)")
    return parser.parse_args(arguments)


def load_images(count: int) -> NDArray[np.uint8]:
    """MNIST, the training images first: uint8[N, 1, 28, 28]."""
    data = load_dataset("mnist", Path(os.environ.get("PINHOLE_DATA", "data")))
    both = (data.train_images.numpy(), data.test_images.numpy())
    return np.concatenate(both)[:count]


def write_sources(work: Path, images: NDArray[np.uint8]) -> tuple[Path, Path, Path]:
    """Write a folder of PNG files, a folder of FEW of these files, and a .npy file."""
    files, few, array = work / "files", work / "few", work / "images.npy"
    files.mkdir()
    few.mkdir()
    for index, pixels in enumerate(images):
        path = files / f"{index:05}.png"
        path.write_bytes(write_png(pixels))
        if index < FEW:
            (few / path.name).hardlink_to(path)
    np.save(array, images)
    return files, few, array


def race(
    bundle: Bundle,
    work: Path,
    sources: tuple[Path, Path, Path],
    images: NDArray[np.uint8],
    options: argparse.Namespace,
) -> dict[str, Run]:
    """One round: limits, jobs, limits again."""
    files, few, array = sources
    local = ["--local", str(bundle.folder), "--device", "cpu"]
    before = limits(bundle, files, images)
    runs = {FILES: run_job(work, files, local), ARRAY: run_job(work, array, local)}
    after = limits(bundle, files, images)
    runs[f"{FEW:,} files, --local"] = run_job(work, few, local)
    if options.url:
        runs[HTTP] = run_job(work, files, ["--url", options.url])
        runs[SCORED] = run_job(work, files, ["--url", options.url, "--score"])
    if options.ray:
        cluster = ["--ray", "local", "--bundle", str(bundle.folder), "--device", "cpu"]
        runs[RAY] = run_job(work, files, cluster)
    read, engine = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    both = 1 / (1 / read + 1 / engine)
    print(f"R {read:,.0f} ({before[0]:,.0f}, {after[0]:,.0f}), E {engine:,.0f} ", end="")
    print(f"({before[1]:,.0f}, {after[1]:,.0f}), both {both:,.0f} images/s")
    for name, run in runs.items():
        others = {ARRAY: engine, HTTP: runs[FILES].rate}
        limit = runs[HTTP].rate if name == SCORED else others.get(name, both)
        runs[name] = replace(run, share=run.rate / limit)
        print(f"  {name}: {run.rate:,.0f} images/s, {runs[name].share:.2f}", flush=True)
    return runs


def limits(bundle: Bundle, files: Path, images: NDArray[np.uint8]) -> tuple[float, float]:
    """Measure R and E, in images/s."""
    return measure_reading(bundle, files), measure_engine(bundle, images)


def measure_reading(bundle: Bundle, files: Path) -> float:
    """Files to pixels, images/s, in a process for each core."""
    paths = sorted(map(str, files.iterdir()))
    chunks = [(str(bundle.folder), paths[i : i + 1_000]) for i in range(0, len(paths), 1_000)]
    with ProcessPoolExecutor(usable_cores(), get_context("spawn")) as pool:
        list(pool.map(read_files, chunks))  # starts the processes
        started = time.perf_counter()
        count = sum(pool.map(read_files, chunks))
        return count / (time.perf_counter() - started)


def read_files(chunk: tuple[str, Sequence[str]]) -> int:
    """Read files; returns how many."""
    spec = load_spec(chunk[0])
    for path in chunk[1]:
        with open(path, "rb") as file:  # noqa: PTH123 - as fast as it gets
            read_image(file.read(), spec, PixelBudget())
    return len(chunk[1])


def load_spec(folder: str, known: dict[str, object] = {}) -> object:  # noqa: B006 - per process
    """The image spec of a bundle, read once in each process."""
    if folder not in known:
        known[folder] = load_bundle(Path(folder)).manifest.image
    return known[folder]


def measure_engine(bundle: Bundle, images: NDArray[np.uint8]) -> float:
    """The engine alone, images/s."""
    engine = open_engine(bundle, device="cpu")
    engine.embed(images[:CALL])
    some = images[: len(images) // 3]
    started = time.perf_counter()
    for start in range(0, len(some), CALL):
        engine.embed(some[start : start + CALL])
    return len(some) / (time.perf_counter() - started)


def command(source: Path, out: Path, where: Sequence[str]) -> list[str]:
    """The job's command line."""
    return [sys.executable, "-m", "pinhole.cli", "embed", str(source), "--out", str(out), *where]


def run_job(work: Path, source: Path, where: Sequence[str]) -> Run:
    """Run a job to its end."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    launcher = [sys.executable, "-S", "-c", LAUNCHER, *command(source, out, where)]
    done = subprocess.run(launcher, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - started
    job = json.loads((out / "_job.json").read_text())
    peak_mb = int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024) / 1e6
    return Run(job["last_run"]["images_per_s"], job["rows"] / seconds, peak_mb)


def print_table(rounds: Sequence[dict[str, Run]]) -> None:
    """Medians over the rounds, as markdown."""
    print("\n| | images/s | share of its limit | with start-up | peak MB |\n|---|---|---|---|---|")
    for name in rounds[0]:
        runs = [each[name] for each in rounds]
        rate, share, whole, peak = (
            statistics.median(getattr(run, field) for run in runs)
            for field in ("rate", "share", "whole_rate", "peak_mb")
        )
        print(f"| {name} | {rate:,.0f} | {share:.2f} | {whole:,.0f} | {peak:,.0f} |", flush=True)


def kill_and_finish(
    bundle: Bundle, work: Path, files: Path, images: NDArray[np.uint8], kills: int
) -> None:
    """Kill a job at random moments, finish it, and compare it with an uninterrupted job."""
    out, moments = work / "killed", np.random.default_rng(0)
    local = ["--local", str(bundle.folder), "--device", "cpu", "--shard-rows", "1000"]
    done = 0
    for _ in range(kills):
        with subprocess.Popen(command(files, out, local), stdout=subprocess.DEVNULL) as job:
            time.sleep(moments.uniform(0.2, 2.0))
            if job.poll() is None:
                os.kill(job.pid, signal.SIGKILL)
                done += 1
    subprocess.run(command(files, out, local), stdout=subprocess.DEVNULL, check=True)
    rows = [row for path in sorted(out.glob("shard-*")) for row in pq.read_table(path).to_pylist()]
    names = [row["path"] for row in rows]
    expected = run_whole(work, files, local)
    found = np.array([row["embedding"] for row in rows])
    difference = np.abs(found - expected).max() / expected.std()
    once = names == sorted(path.name for path in files.iterdir())
    print(
        f"\nkilled {done} times: every path exactly once: {once}; embeddings differ from an ",
        end="",
    )
    print(f"uninterrupted job's by {difference:.1e} of their deviation at most (limit {SAME:g})")
    if not once or not difference <= SAME:
        raise SystemExit("bench.jobs: rows were lost, doubled or changed")


def run_whole(work: Path, files: Path, where: Sequence[str]) -> NDArray[np.float64]:
    """The embeddings of an uninterrupted job."""
    run_job(work, files, where)
    tables = [pq.read_table(path) for path in sorted((work / "out").glob("shard-*"))]
    return np.concatenate([np.array(table["embedding"].to_pylist()) for table in tables])


if __name__ == "__main__":
    sys.exit(main())
