"""The loads that a benchmark puts on a service, and what is measured under each."""

import argparse
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import strangers, wrk
from bench.contenders import SERVERS, Running, ask
from bench.forms import with_head
from bench.photographs import large_photograph
from bench.reading import TWELVE_MEGAPIXELS, TWO_MEGAPIXELS, write
from bench.tables import CONNECTIONS, FEW, LARGE, MANY, PAIR, PLURAL, STRANGERS
from bench.wrk import Load, Target
from serve.bundle.engine.opening import open_engine
from serve.bundle.manifest import Bundle
from serve.wire.media import NPY

SHORTER = 5 / 8  # share of the seconds of a run for loads that settle sooner
LONGER = 6  # times as long as SHORTER, for the largest requests
HEAD_START_S = 1.0  # that the large requests run before the small requests begin
COUNTS = (PLURAL, LARGE)  # images in a request

Measured = Iterator[tuple[str, str, Load | float]]  # contender, what, figure


def command_line(module: str, about: str) -> argparse.ArgumentParser:
    """The options of a module whose rounds put loads on a bundle."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="folder that python -m export wrote")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="length of a load (default: %(default)s)"
    )
    return parser


def measure_engine(bundle: Bundle, cores: int, seconds: float) -> Load:
    """An engine of one thread alone in this process, called with PLURAL images on each core."""
    opened = open_engine(bundle, "onnxruntime", "cpu", "fp32", threads=1)
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


def measure_single(name: str, service: Running, single: Target, seconds: float) -> Measured:
    """Requests of one PNG over more and more connections."""
    for connections in CONNECTIONS:
        length_s = seconds if connections == MANY else seconds * SHORTER
        yield name, f"single {connections}", measure(service, single, connections, length_s)


def measure_photographs(service: Running, bundle: Bundle, seconds: float) -> Measured:
    """Requests of one photograph, a JPEG with a digit on paper, over FEW connections.

    What is drawn is the same in each run. Nobody checks the answers: the peers stretch the
    photograph, and this project looks for the ink.
    """
    digit = bundle.golden().images[0, 0]
    for what, size in (("2 MP", TWO_MEGAPIXELS), ("12 MP", TWELVE_MEGAPIXELS)):
        photograph = large_photograph(digit, size, np.random.default_rng(0))
        file = write(photograph, "JPEG", quality=92)
        target = service.post(service.contender.path, file, "jpeg")
        yield service.contender.name, what, measure(service, target, FEW, seconds)


def pictures(bundle: Bundle, count: int) -> NDArray[np.uint8]:
    """uint8[count, C, H, W]: the golden images, again and again."""
    images = bundle.golden().images
    return np.resize(images, (count, *images.shape[1:]))


def measure_plural(service: Running, bundle: Bundle, folder: Path, seconds: float) -> Measured:
    """Requests of PLURAL and of LARGE images over FEW connections, answered with an array."""
    name, golden = service.contender.name, bundle.golden().embeddings
    targets = {count: npy_request(service, bundle, "embed", count, folder) for count in COUNTS}
    if name in SERVERS:
        targets |= {"OIP": oip_request(service, bundle, folder)}
    for form, target in targets.items():
        expected = np.resize(golden, (form if form in COUNTS else PLURAL, golden.shape[1]))
        raw = ask(target).content[-expected.nbytes :]  # an array comes last in both forms
        service.compare(np.frombuffer(raw, "<f4").reshape(expected.shape), expected)
        if form == LARGE:  # each answer takes a second
            yield name, f"plural {form}", measure(service, target, PAIR, seconds * LONGER)
        else:
            yield name, f"plural {form}", measure(service, target, FEW, seconds)


def oip_request(service: Running, bundle: Bundle, folder: Path) -> Target:
    """A request to embed PLURAL images as a binary tensor, which is answered with one too."""
    images = pictures(bundle, PLURAL)
    tensor = {
        "name": "images",
        "datatype": "UINT8",
        "shape": images.shape,
        "parameters": {"binary_data_size": images.nbytes},
    }
    head = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    body, headers = with_head(head, images.tobytes())
    file = folder / "images.oip"
    file.write_bytes(body)
    return Target(f"{service.url}/v2/models/embed/infer", file, headers)


def npy_request(
    service: Running, bundle: Bundle, endpoint: str, count: int, folder: Path
) -> Target:
    """A request with so many images as an array, which is answered with an array too."""
    body = folder / f"{count}.npy"
    np.save(body, pictures(bundle, count))
    path = f"/predictions/{endpoint}" if service.contender.name in SERVERS else "/embed-many"
    return Target(service.url + path, body, {"Content-Type": NPY, "Accept": NPY})


def measure_mixed(service: Running, bundle: Bundle, folder: Path, seconds: float) -> Measured:
    """Single images of independent callers, alone and beside one caller of LARGE requests."""
    name = service.contender.name
    for endpoint in ("embed", "reconstruct"):
        small = service.post(f"/predictions/{endpoint}", service.png, "png")
        yield (
            name,
            f"{endpoint} alone",
            strangers.measure(small, STRANGERS, seconds * SHORTER),
        )
        large_s = seconds / SHORTER + 2 * HEAD_START_S
        large = wrk.start(npy_request(service, bundle, endpoint, LARGE, folder), 1, large_s)
        try:
            time.sleep(HEAD_START_S)
            beside = strangers.measure(small, STRANGERS, seconds / SHORTER)
        finally:
            large_load = wrk.finish(large, large_s)
        yield name, f"{endpoint} beside", beside
        yield name, f"{endpoint} large", large_load
