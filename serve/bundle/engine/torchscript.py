"""The TorchScript engine: CUDA or CPU, for hosts that already run PyTorch."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serve.bundle.engine.checks import check_precision
from serve.bundle.engine.chunks import ChunkedEngine, Run
from serve.bundle.engine.host import processor_has_bf16
from serve.bundle.errors import EngineError, first_line
from serve.bundle.manifest import Bundle

# device → images of 28 x 28 in one chunk. On a CPU, chunks of 64 are twice as fast as chunks of
# 256, and chunks of 8 are slower again.
CHUNKS = {"cpu": 64, "cuda": 4_096}
OFFERED = {"cuda": ("fp32", "fp16"), "cpu": ("fp32", "bf16")}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def open_bundle(
    bundle: Bundle, device: str, precision: str, device_id: int, threads: int
) -> ChunkedEngine:
    """Load autoencoder.ts; see serve.bundle.engine.opening.open_engine."""
    place = choose_device(device, device_id)
    name = f"torchscript {place}"
    check_precision(precision, OFFERED[place.type], name)
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # it keeps only 10 of float32's 23 mantissa bits
    model = load_script(bundle, place)
    encode, decode = (to_run(half, place, precision) for half in (model.encode, model.decode))
    return ChunkedEngine(bundle.manifest, name, precision, encode, decode, CHUNKS[place.type])


def to_run(
    half: Callable[[torch.Tensor], torch.Tensor], device: torch.device, precision: str
) -> Run:
    """A half of the model, ready to run a chunk.

    A lone row goes in twice: PyTorch has another matrix kernel for a batch of one row, and an
    image's answer would depend on whether other images came with it.
    """

    @torch.inference_mode()
    def run(rows: NDArray[Any]) -> NDArray[np.float32]:
        # Copies a read-only array, such as a view of a request's bytes: torch would warn of it.
        given = torch.from_numpy(np.require(rows, requirements="W")).to(device)
        if len(rows) == 1:
            given = given.expand(2, *given.shape[1:])
        lowered = precision != "fp32"
        with torch.autocast(device.type, DTYPES[precision], enabled=lowered):
            answer: NDArray[np.float32] = half(given)[: len(rows)].float().cpu().numpy()
        return answer

    return run


def available() -> list[tuple[str, str]]:
    """Every (device, precision) that this torch runs in here, the best device first."""
    return [
        (device, precision)
        for device, precisions in OFFERED.items()
        if device != "cuda" or torch.cuda.is_available()
        for precision in precisions
        if precision != "bf16" or processor_has_bf16()
    ]


def choose_device(device: str, device_id: int) -> torch.device:
    """Resolve ``auto`` to CUDA where there is a GPU, else to the CPU.

    Raises:
        EngineError: another device was asked for and isn't there.
    """
    if device == "openvino":
        raise EngineError("device is openvino, which is for the runtime onnxruntime")
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("device is cuda, but this torch finds no CUDA device")
    use_cuda = torch.cuda.is_available() and device != "cpu"
    return torch.device("cuda", device_id) if use_cuda else torch.device("cpu")


def load_script(bundle: Bundle, device: torch.device) -> torch.jit.ScriptModule:
    """Load autoencoder.ts.

    Raises:
        EngineError: torch can't read it.
    """
    path = bundle.folder / "autoencoder.ts"
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated but works, and the bundle's format promises TorchScript.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.jit")
            model: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location=device
            )
    except RuntimeError as error:
        raise EngineError(f"torch can't load {path.name}: {first_line(error)}") from error
    return model.eval()
