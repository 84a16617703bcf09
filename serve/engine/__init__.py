"""Engines: what executes a bundle. One small protocol, two implementations.

Arrays are checked here, at the door, so that both engines say the same thing about a wrong one.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serve.bundle import Bundle, ImageSpec
from serve.errors import EngineError

RUNTIMES = ("onnxruntime", "torchscript")
DEVICES = ("auto", "cpu", "openvino", "cuda")
PRECISIONS = ("fp32", "bf16", "fp16")

Run = Callable[[NDArray[Any]], NDArray[np.float32]]  # one chunk of rows through one graph


class Engine(Protocol):
    """A bundle ready to run.

    Attributes:
        name: runtime and device in use, for the log, e.g. ``onnxruntime CPUExecutionProvider``.
        precision: of the arithmetic, one of PRECISIONS.
    """

    name: str
    precision: str

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[N, C, H, W] → float32[N, D]. Raises EngineError for any other array."""

    def decode(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N, D] → float32[N, C, H, W] in [0, 1]. Raises EngineError likewise."""


def open_engine(
    bundle: Bundle,
    runtime: str = "onnxruntime",
    device: str = "auto",
    precision: str = "fp32",
    device_id: int = 0,
    threads: int | None = None,
) -> Engine:
    """Load a bundle into a runtime.

    Args:
        bundle: from load_bundle.
        runtime: one of RUNTIMES.
        device: ``cuda`` means CUDA or a refusal, ``openvino`` (of onnxruntime) the CPU through
            OpenVINO or a refusal; ``auto`` takes the best there is: CUDA, OpenVINO, CPU.
        precision: one of PRECISIONS; bf16 is for processors that have it, fp16 for CUDA.
        device_id: which GPU.
        threads: to compute with on a CPU; None takes every core this process may use.

    Raises:
        EngineError: the runtime isn't installed or lacks the device or the precision, or the model
            doesn't keep its answers in that precision.
    """
    for name, value, known in (
        ("runtime", runtime, RUNTIMES),
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise EngineError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    if precision not in bundle.manifest.tolerances:
        raise EngineError(
            f"this model is not offered in {precision}: its answers would move too far "
            "(parity in manifest.json says how far)"
        )
    choice = bundle, device, precision, device_id, threads or usable_cores()
    try:
        if runtime == "onnxruntime":
            from serve.engine.onnx import OnnxEngine

            return OnnxEngine(*choice)
        from serve.engine.torchscript import TorchScriptEngine

        return TorchScriptEngine(*choice)
    except ImportError as error:
        raise EngineError(f"runtime {runtime} isn't installed ({first_line(error)})") from error


def available(runtime: str) -> list[tuple[str, str]]:
    """Every (device, precision) that a runtime of RUNTIMES can be opened in on this host."""
    if runtime == "onnxruntime":
        from serve.engine import onnx

        return onnx.available()
    from serve.engine import torchscript

    return torchscript.available()


def run_chunks(
    run: Run, rows: NDArray[Any], row_shape: tuple[int, ...], size: int
) -> NDArray[np.float32]:
    """Run a graph over all ``rows``, ``size`` at a time.

    Args:
        run: gives one row of ``row_shape`` for each row.
        rows: contiguous or not, writable or not.
        row_shape: of one result.
        size: of one chunk.
    """
    result = np.empty((len(rows), *row_shape), np.float32)
    for start in range(0, len(rows), size):
        chunk = np.ascontiguousarray(rows[start : start + size])
        result[start : start + size] = run(chunk)
    return result


def chunk_size(images: int, spec: ImageSpec) -> int:
    """As many images as have the pixels of so many of 28 x 28: memory is bounded in pixels."""
    return max(1, images * 28 * 28 // (spec.height * spec.width))


def first_line(error: Exception) -> str:
    """What a runtime's message of many lines begins with."""
    return str(error).strip().partition("\n")[0]


def check_golden(engine: Engine, bundle: Bundle) -> None:
    """Prove that an engine gives eager PyTorch's answers on the bundle's golden images.

    Raises:
        EngineError: it doesn't; the message says by how much.
    """
    golden, tolerance = bundle.golden(), bundle.manifest.tolerances[engine.precision]
    for what, limit, actual, expected in (
        ("embeddings", tolerance.embedding, engine.embed(golden.images), golden.embeddings),
        ("pixels", tolerance.pixel, engine.decode(golden.embeddings), golden.reconstructions),
    ):
        difference = float(np.abs(actual - expected).max())
        if not difference <= limit:
            raise EngineError(
                f"{engine.name} is wrong: golden {what} differ by {difference:.2g}, "
                f"over the {limit:.2g} allowed"
            )


def check_images(images: NDArray[np.uint8], spec: ImageSpec) -> None:
    """Raise EngineError unless ``images`` is uint8[N, C, H, W] of the model, N at least 1."""
    if images.dtype != np.uint8 or images.shape[1:] != spec.shape or len(images) == 0:
        raise EngineError(
            f"expected uint8[N, {', '.join(map(str, spec.shape))}], N at least 1; "
            f"got {images.dtype}{list(images.shape)}"
        )


def check_embeddings(embeddings: NDArray[np.float32], width: int) -> None:
    """Raise EngineError unless ``embeddings`` is a finite float32[N, D], N at least 1."""
    if embeddings.dtype != np.float32 or embeddings.shape[1:] != (width,) or len(embeddings) == 0:
        raise EngineError(
            f"expected float32[N, {width}], N at least 1; "
            f"got {embeddings.dtype}{list(embeddings.shape)}"
        )
    if not np.isfinite(embeddings).all():
        raise EngineError("an embedding holds NaN or infinity; every number must be finite")


def usable_cores() -> int:
    """The whole cores this process may use: its affinity, cut by the cgroup's CPU quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = affinity or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def check_precision(precision: str, offered: tuple[str, ...], where: str) -> None:
    """Raise EngineError unless this runtime, device and processor compute in ``precision``."""
    if precision not in offered:
        raise EngineError(
            f"{where} computes in {' or '.join(offered)}, not in {precision}; bf16 is offered by "
            "device openvino and by runtime torchscript, fp16 by device cuda"
        )
    if precision == "bf16" and not processor_has_bf16():
        raise EngineError("precision bf16 needs a processor with AMX or AVX512-BF16: use fp32")


def processor_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16; without, emulation would be slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
