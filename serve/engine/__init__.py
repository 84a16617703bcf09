"""Engines: what executes a bundle. One small protocol, two implementations.

Arrays are checked here, at the door, so that both engines say the same thing about a wrong one.
"""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serve.bundle import Bundle, ImageSpec
from serve.errors import EngineError

RUNTIMES = ("onnxruntime", "torchscript")
DEVICES = ("auto", "cpu", "cuda")
CHUNK = 512  # images run at a time, so memory is bounded whatever the request


class Engine(Protocol):
    """A bundle ready to run.

    Attributes:
        name: runtime and device in use, for the log, e.g. ``onnxruntime CPUExecutionProvider``.
        precision: of the arithmetic, e.g. ``fp32``.
    """

    name: str
    precision: str

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[N, C, H, W] → float32[N, D]. Raises EngineError for any other array."""

    def decode(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N, D] → float32[N, C, H, W] in [0, 1]. Raises EngineError likewise."""


def open_engine(bundle: Bundle, runtime: str = "onnxruntime", device: str = "auto") -> Engine:
    """Load a bundle into a runtime.

    Args:
        bundle: from load_bundle.
        runtime: one of RUNTIMES.
        device: ``cuda`` means CUDA or a refusal; ``auto`` takes CUDA where the runtime has it.

    Raises:
        EngineError: the runtime isn't installed, or lacks the device.
    """
    if device not in DEVICES:
        raise EngineError(f"device must be one of {', '.join(DEVICES)}; got {device!r}")
    if runtime == "onnxruntime":
        from serve.engine.onnx import OnnxEngine

        return OnnxEngine(bundle, device)
    if runtime == "torchscript":
        from serve.engine.torchscript import TorchScriptEngine

        return TorchScriptEngine(bundle, device)
    raise EngineError(f"runtime must be one of {', '.join(RUNTIMES)}; got {runtime!r}")


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
    """Raise EngineError unless ``images`` is uint8[N, C, H, W] of the model."""
    if images.dtype != np.uint8 or images.shape[1:] != spec.shape:
        raise EngineError(
            f"expected uint8[N, {', '.join(map(str, spec.shape))}]; "
            f"got {images.dtype}{list(images.shape)}"
        )


def check_embeddings(embeddings: NDArray[np.float32], width: int) -> None:
    """Raise EngineError unless ``embeddings`` is a finite float32[N, D] of the model."""
    if embeddings.dtype != np.float32 or embeddings.ndim != 2 or embeddings.shape[1] != width:
        raise EngineError(
            f"expected float32[N, {width}]; got {embeddings.dtype}{list(embeddings.shape)}"
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
