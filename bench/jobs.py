"""Batch jobs beside what limits them and what people write instead: 70,000 files → vectors on disk.

    python -m bench.jobs build/mnist          # or: make bench-jobs

Every way takes its turn in each round. Ours are the command ``pinhole embed``; the peers' code is
in bench/peers/. A way's time is that of its process, from its start to its end. Its memory is the
largest PSS of all its processes together, a service's included. The results are medians over the
rounds. The limits, measured before and after the ways of a round:

    R    reading: files to pixels, in as many processes as there are cores
    E    the engine alone, on arrays, with all cores
    1/(1/R + 1/E)    what reading and then embedding would take, with nothing lost between

In the end each way is killed (kill -9) half-way, with all its processes, and run again as it was.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.contenders import Running, environment, family, find_contender, running
from bench.tables import machine, print_table
from serve.bundle.engine.host import usable_cores
from serve.bundle.engine.opening import open_engine
from serve.bundle.images import PixelBudget, read_image, write_png
from serve.bundle.manifest import Bundle, ImageSpec, load_bundle
from train.data import data_folder, load_dataset

FILES, ARRAY = "files, --local", "one .npy file, --local"
# Way → the options of pinhole embed, or the module of a peer.
OURS = {
    FILES: ["--local", "{bundle}", "--device", "cpu"],
    ARRAY: ["--local", "{bundle}", "--device", "cpu"],
    "files, --url, granian": ["--url", "{url}"],
    "files, --url, torchserve": ["--url", "{url}"],
    "files, --ray": ["--ray", "local", "--bundle", "{bundle}", "--device", "cpu"],
}
PEERS = {
    "PyTorch's DataLoader": "bench.peers.loader_job",
    "onnxruntime, threads": "bench.peers.pool_job",
    "Ray Data": "bench.peers.ray_data_job",
    "clip-retrieval's style": "bench.peers.partitions_job",
}
IMAGES = 70_000
CALL = 256  # images in one call, where the engine alone is measured
LOOK_S = 0.5  # between two looks at the memory

EXAMPLES = """
examples:
  python -m bench.jobs build/mnist
  python -m bench.jobs build/mnist --images 500 --rounds 1

A full run takes 35 minutes on two cores. MNIST is read from $PINHOLE_DATA, or data/.
"""


@dataclass(frozen=True)
class Run:
    """A way's run to the end: images/s, its largest PSS in MB, and the share of its limit."""

    rate: float
    peak_mb: float
    share: float


@dataclass(frozen=True)
class Sources:
    """The same images as a folder of PNG files and as one .npy file, and a folder for results."""

    files: Path
    array: Path
    out: Path


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    bundle = load_bundle(options.bundle.resolve())
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        images = load_images(options.images)
        sources = write_sources(Path(name), images)
        packages = ("onnxruntime", "torch", "ray", "pyarrow")
        print(f"{machine(*packages)}, {len(images):,} images", flush=True)
        rounds = [race(bundle, sources, images) for _ in range(options.rounds)]
        head = ["", "images/s", "share of its limit", "peak MB", "lost", "doubled", "to finish, s"]
        print()
        print_table(head, rows_of(rounds, bundle, sources))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.jobs",
        description="Batch jobs beside what limits them and what people write instead.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="folder that python -m export wrote")
    parser.add_argument("--images", type=int, default=IMAGES, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for files (default: the system's)")
    return parser.parse_args(arguments)


def load_images(count: int) -> NDArray[np.uint8]:
    """MNIST, the training images first: uint8[N, 1, 28, 28]."""
    data = load_dataset("mnist", data_folder())
    both = (data.train_images.numpy(), data.test_images.numpy())
    return np.concatenate(both)[:count]


def write_sources(work: Path, images: NDArray[np.uint8]) -> Sources:
    """Write the images."""
    sources = Sources(work / "files", work / "images.npy", work / "out")
    sources.files.mkdir()
    for index, pixels in enumerate(images):
        (sources.files / f"{index:05}.png").write_bytes(write_png(pixels))
    np.save(sources.array, images)
    return sources


def race(bundle: Bundle, sources: Sources, images: NDArray[np.uint8]) -> dict[str, Run]:
    """One round: limits, every way, limits again."""
    before = limits(bundle, sources, images)
    found = {}
    for way in (*OURS, *PEERS):
        shutil.rmtree(sources.out, ignore_errors=True)
        try:
            with service_for(way, bundle) as service:
                found[way] = run(command(way, bundle, sources, service), bundle, service)
        except RuntimeError as error:
            print(f"Left out: {way}: {error}", flush=True)
            continue
        rate = len(images) / found[way][0]
        print(f"{way}: {rate:,.0f} images/s", file=sys.stderr, flush=True)
    after = limits(bundle, sources, images)
    read, engine = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    both = 1 / (1 / read + 1 / engine)
    print(f"R {read:,.0f}, E {engine:,.0f}, both {both:,.0f} images/s")
    return {
        way: Run(
            len(images) / seconds,
            peak_mb,
            len(images) / seconds / (engine if way == ARRAY else both),
        )
        for way, (seconds, peak_mb) in found.items()
    }


def limits(bundle: Bundle, sources: Sources, images: NDArray[np.uint8]) -> tuple[float, float]:
    """Measure R and E, in images/s."""
    return measure_reading(bundle, sources.files), measure_engine(bundle, images)


def measure_reading(bundle: Bundle, files: Path) -> float:
    """Files to pixels, images/s, in a process for each core."""
    paths = sorted(map(str, files.iterdir()))
    chunks = [(bundle.manifest.image, paths[i : i + 1_000]) for i in range(0, len(paths), 1_000)]
    with ProcessPoolExecutor(usable_cores(), get_context("spawn")) as pool:
        list(pool.map(read_files, chunks))  # starts the processes
        started = time.perf_counter()
        count = sum(pool.map(read_files, chunks))
        return count / (time.perf_counter() - started)


def read_files(chunk: tuple[ImageSpec, Sequence[str]]) -> int:
    """Read files; returns how many."""
    spec, paths = chunk
    for path in paths:
        with open(path, "rb") as file:  # noqa: PTH123 - as fast as it gets
            read_image(file.read(), spec, PixelBudget())
    return len(paths)


def measure_engine(bundle: Bundle, images: NDArray[np.uint8]) -> float:
    """The engine alone, images/s."""
    engine = open_engine(bundle, device="cpu")
    engine.embed(images[:CALL])
    some = images[: max(CALL, len(images) // 3)]
    started = time.perf_counter()
    for start in range(0, len(some), CALL):
        engine.embed(some[start : start + CALL])
    return len(some) / (time.perf_counter() - started)


@contextmanager
def service_for(way: str, bundle: Bundle) -> Iterator[Running | None]:
    """The service that a way asks; None for a way that needs no service."""
    if "--url" not in way:
        yield None
        return
    server = way.rpartition(" ")[2]
    with (
        tempfile.TemporaryDirectory() as folder,
        running(find_contender(server, bundle), bundle, Path(folder)) as service,
    ):
        yield service


def command(way: str, bundle: Bundle, sources: Sources, service: Running | None) -> list[str]:
    """A way's command line."""
    source, out = (sources.array if way == ARRAY else sources.files), str(sources.out)
    if way in PEERS:
        return [sys.executable, "-m", PEERS[way], str(source), out]
    words = {"bundle": bundle.folder, "url": service.url if service else ""}
    where = [option.format(**words) for option in OURS[way]]
    return [sys.executable, "-m", "pinhole", "embed", str(source), "--out", out, *where]


def start(command: Sequence[str], bundle: Bundle) -> psutil.Popen:
    """Start a way's process."""
    return psutil.Popen(command, env=environment(bundle), stdout=subprocess.DEVNULL)


def run(
    command: Sequence[str], bundle: Bundle, service: Running | None = None
) -> tuple[float, float]:
    """Run a way to its end; returns the seconds that took, and the largest PSS in MB.

    Raises:
        RuntimeError: it failed.
    """
    started, peak_mb = time.perf_counter(), 0.0
    process = start(command, bundle)
    while process.poll() is None:
        roots = [process, *(service.processes if service else [])]
        peak_mb = max(peak_mb, sum(pss_mb(each) for root in roots for each in members(root)))
        with suppress(psutil.TimeoutExpired):
            process.wait(LOOK_S)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} of {' '.join(command)}")
    return time.perf_counter() - started, peak_mb


def members(root: psutil.Process) -> list[psutil.Process]:
    """A process and all that it has started; none if it has ended."""
    try:
        return family(root)
    except psutil.NoSuchProcess:
        return []


def pss_mb(process: psutil.Process) -> float:
    """A process's share of the memory; 0 if it has ended."""
    try:
        return process.memory_full_info().pss / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def rows_of(
    rounds: Sequence[dict[str, Run]], bundle: Bundle, sources: Sources
) -> Iterator[list[str]]:
    """The table: medians over the rounds, and what a kill costs."""
    count = len(list(sources.files.iterdir()))
    for way in rounds[0]:
        runs = [each[way] for each in rounds if way in each]
        rate, peak, share = (
            statistics.median(getattr(run, field) for run in runs)
            for field in ("rate", "peak_mb", "share")
        )
        lost, doubled, seconds = kill_half_way(way, bundle, sources, count, count / rate)
        yield [
            way,
            f"{rate:,.0f}",
            f"{share:.2f}",
            f"{peak:,.0f}",
            f"{lost:,}",
            f"{doubled:,}",
            f"{seconds:.1f} of {count / rate:.1f}",
        ]


def kill_half_way(
    way: str, bundle: Bundle, sources: Sources, count: int, seconds: float
) -> tuple[int, int, float]:
    """Kill a way that takes so many seconds, and run it again.

    Returns:
        How many rows of ``count`` are missing then, how many are there more than once, and how
        many seconds the second run took.
    """
    shutil.rmtree(sources.out, ignore_errors=True)
    with service_for(way, bundle) as service:
        words = command(way, bundle, sources, service)
        process = start(words, bundle)
        time.sleep(seconds / 2)
        for member in members(process):
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        again_s, _ = run(words, bundle)
    names = names_in(sources.out)
    return count - len(set(names)), len(names) - len(set(names)), again_s


def names_in(out: Path) -> list[str]:
    """The names of the rows that a way has written."""
    if (out / "names.txt").is_file():
        return (out / "names.txt").read_text().splitlines()
    tables = [pq.read_table(path, columns=["path"]) for path in sorted(out.rglob("*.parquet"))]
    return [Path(path).name for table in tables for path in table["path"].to_pylist()]


if __name__ == "__main__":
    sys.exit(main())
