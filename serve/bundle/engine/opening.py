"""Load a bundle into a runtime."""

from importlib import import_module
from typing import Protocol, cast

from serve.bundle.engine.host import usable_cores
from serve.bundle.engine.protocol import DEVICES, PRECISIONS, Engine
from serve.bundle.errors import EngineError, first_line
from serve.bundle.manifest import Bundle

# runtime → the module that implements it, imported only where that runtime is asked for. To add a
# runtime, write such a module (see Runtime) and name it here.
RUNTIMES = {
    "onnxruntime": "serve.bundle.engine.onnx",
    "torchscript": "serve.bundle.engine.torchscript",
}


class Runtime(Protocol):
    """What the module of a runtime offers."""

    def open_bundle(
        self, bundle: Bundle, device: str, precision: str, device_id: int, threads: int
    ) -> Engine:
        """Load a bundle; see open_engine."""

    def available(self) -> list[tuple[str, str]]:
        """Every (device, precision) that this host can run, the best device first."""


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
        device: one of DEVICES. ``auto`` takes the first that this host has of CUDA, OpenVINO (in
            onnxruntime only) and the CPU; a device that is named is never replaced.
        precision: one of PRECISIONS; bf16 is for processors that have it, fp16 for CUDA.
        device_id: number of the GPU.
        threads: to compute with on a CPU; None takes every core this process may use.

    Raises:
        EngineError: the runtime isn't installed or lacks the device or the precision, or the model
            doesn't keep its answers in that precision.
    """
    for name, value, known in (("device", device, DEVICES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise EngineError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    if precision not in bundle.manifest.tolerances and runtime in RUNTIMES:
        raise EngineError(
            f"this model is not offered in {precision}: its answers would move too far "
            "(parity in manifest.json says how far)"
        )
    return import_runtime(runtime).open_bundle(
        bundle, device, precision, device_id, threads or usable_cores()
    )


def available(runtime: str) -> list[tuple[str, str]]:
    """Every (device, precision) that a runtime of RUNTIMES can be opened in on this host.

    Raises:
        EngineError: the runtime isn't installed.
    """
    return import_runtime(runtime).available()


def import_runtime(name: str) -> Runtime:
    """The module of a runtime.

    Raises:
        EngineError: there is no such runtime, or it isn't installed.
    """
    if name not in RUNTIMES:
        raise EngineError(f"runtime must be one of {', '.join(RUNTIMES)}; got {name!r}")
    try:
        return cast(Runtime, import_module(RUNTIMES[name]))
    except ImportError as error:
        raise EngineError(f"runtime {name} isn't installed ({first_line(error)})") from error
