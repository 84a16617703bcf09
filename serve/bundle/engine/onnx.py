"""The onnxruntime engine, on CUDA, OpenVINO or the CPU: no device silently replaces another."""

import json
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from serve.bundle.distribution import install_command
from serve.bundle.engine.checks import check_precision
from serve.bundle.engine.chunks import ChunkedEngine, Run
from serve.bundle.engine.cuda import has_gpu, locked_array
from serve.bundle.engine.host import processor_has_bf16
from serve.bundle.errors import EngineError, first_line
from serve.bundle.manifest import Bundle

# device → execution provider, the best device first
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
EXTRA_OF_DEVICE = {"cuda": "gpu", "openvino": "openvino", "cpu": "local"}
# device → images of 28 x 28 in one chunk, for an engine of one thread and of several threads. One
# thread is fastest with few images: the activations between two layers stay in its core's cache.
# Several threads share the images of each layer and wait for each other after it, so they need
# more. A GPU needs thousands to fill its cores.
CHUNKS = {"cpu": (4, 32), "openvino": (16, 64), "cuda": (4_096, 4_096)}
OFFERED = {"cuda": ("fp32", "fp16"), "openvino": ("fp32", "bf16"), "cpu": ("fp32",)}
# What opening a session raises. onnxruntime's own exceptions share no base but Exception.
UNLOADABLE = (
    RuntimeError,
    ValueError,
    faults.EPFail,
    faults.Fail,
    faults.InvalidArgument,
    faults.InvalidGraph,
    faults.InvalidProtobuf,
    faults.NoSuchFile,
    faults.NotImplemented,
    faults.RuntimeException,
)


class BoundGraph:
    """A graph whose inputs and outputs lie in buffers that are reused.

    Chunks are padded to a power of two, so that there are few buffers. The device's memory is
    allocated once for each buffer.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, device_type: str, device_id: int
    ) -> None:
        self._session, self._place = session, (device_type, device_id)
        self._buffers: dict[int, tuple[Any, Any, Any, Any]] = {}  # by batch size

    def __call__(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Run one chunk, and drop the padding's results. The next call overwrites the result."""
        size = 1 << (len(rows) - 1).bit_length()
        if size not in self._buffers:
            self._buffers[size] = self._bind(size, rows.dtype)
        binding, sent, given, result = self._buffers[size]
        sent[: len(rows)] = rows
        given.update_inplace(sent)
        self._session.run_with_iobinding(binding)
        answer: NDArray[np.float32] = result[: len(rows)]
        return answer

    def _bind(self, size: int, dtype: np.dtype[Any]) -> tuple[Any, Any, Any, Any]:
        """Buffers for ``size`` rows: the binding, the host's input, the device's, the output."""
        (given,), (result,) = self._session.get_inputs(), self._session.get_outputs()
        blank = np.zeros((size, *given.shape[1:]), dtype)
        # This copy comes first, since it gives the thread a CUDA context: without a context, the
        # driver locks no memory.
        inputs = onnxruntime.OrtValue.ortvalue_from_numpy(blank, *self._place)
        allocate = locked_array if self._place[0] == "cuda" else np.zeros
        sent = allocate(blank.shape, dtype)
        received = allocate((size, *result.shape[1:]), np.dtype(np.float32))
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(given.name, inputs)
        binding.bind_output(result.name, "cpu", 0, np.float32, received.shape, received.ctypes.data)
        return binding, sent, inputs, received


def open_bundle(
    bundle: Bundle, device: str, precision: str, device_id: int, threads: int
) -> ChunkedEngine:
    """Load encoder.onnx and decoder.onnx; see serve.bundle.engine.opening.open_engine."""
    device = choose_device(device)
    number = f" {device_id}" if device == "cuda" else ""
    name = f"onnxruntime {PROVIDERS[device]}{number}"
    check_precision(precision, OFFERED[device], name)
    encode, decode = (
        open_graph(bundle, half, device, precision, device_id, threads)
        for half in ("encoder", "decoder")
    )
    size = CHUNKS[device][threads > 1]
    return ChunkedEngine(bundle.manifest, name, precision, encode, decode, size)


def available() -> list[tuple[str, str]]:
    """Every (device, precision) that this onnxruntime runs in here, the best device first."""
    return [
        (device, precision)
        for device in PROVIDERS
        if missing(device) is None
        for precision in OFFERED[device]
        if precision != "bf16" or processor_has_bf16()
    ]


def choose_device(device: str) -> str:
    """Resolve ``auto`` to the best device of this onnxruntime and host.

    Raises:
        EngineError: the device that was asked for isn't there.
    """
    if device == "auto":
        return available()[0][0]
    reason = missing(device)
    if reason is not None:
        raise EngineError(f"device is {device}, but {reason}")
    return device


def missing(device: str) -> str | None:
    """Why a device can't be used; None if it can."""
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        return (
            f"this onnxruntime has no {PROVIDERS[device]}: in a fresh environment (the builds of "
            f"onnxruntime overwrite each other), {install_command(EXTRA_OF_DEVICE[device])}"
        )
    if device == "cuda" and not has_gpu():
        return "this host has no NVIDIA driver with a GPU"
    return None


def open_graph(
    bundle: Bundle, half: str, device: str, precision: str, device_id: int, threads: int
) -> Run:
    """Load ``half`` of the model, ``encoder`` or ``decoder``, ready to run a chunk.

    Raises:
        EngineError: the graph can't be loaded, or the provider can't start.
    """
    file = f"{half}.fp16.onnx" if precision == "fp16" else f"{half}.onnx"
    options = provider_options(device, precision, device_id, threads)
    session = open_session(bundle, file, device, options, threads)
    if device == "cuda":
        return BoundGraph(session, "cuda", device_id)
    name = session.get_inputs()[0].name

    def run(rows: NDArray[Any]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(None, {name: rows})[0]
        return result

    return run


def provider_options(device: str, precision: str, device_id: int, threads: int) -> dict[str, str]:
    """The options of a device's execution provider."""
    if device == "cuda":
        return {
            "device_id": str(device_id),
            "use_tf32": "0",  # TensorFloat-32 keeps only 10 of float32's 23 mantissa bits
            # cuDNN's fallback kernels: the same whatever the batch size, so that an image's
            # neighbours don't change its answer. cuDNN chooses its faster kernels by that size.
            "cudnn_conv_algo_search": "DEFAULT",
        }
    if device == "openvino":
        # The hint is needed for fp32 too: OpenVINO's default is bf16 where the processor has it.
        hint = {"fp32": "f32", "bf16": "bf16"}[precision]
        settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        settings["INFERENCE_NUM_THREADS"] = str(threads)
        settings["ENABLE_CPU_PINNING"] = "NO"  # pinning puts every process's first thread on core 0
        return {"device_type": "CPU", "load_config": json.dumps({"CPU": settings})}
    return {}


def open_session(
    bundle: Bundle, file: str, device: str, provider_options: dict[str, str], threads: int
) -> onnxruntime.InferenceSession:
    """Load one graph onto one device of PROVIDERS.

    Raises:
        EngineError: the graph can't be loaded, or the provider couldn't start (no driver, say)
            and onnxruntime fell back to another provider.
    """
    provider, options = PROVIDERS[device], onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads would spin while they wait for a request, on cores that other workers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: onnxruntime warns once for each node
    if device == "cuda":
        onnxruntime.preload_dlls()  # CUDA and cuDNN from the nvidia-* packages
        # Errors only: the provider warns of every layer that the fallback kernels may be slow.
        onnxruntime.set_default_logger_severity(3)
    try:
        session = onnxruntime.InferenceSession(
            str(bundle.folder / file),
            options,
            providers=[(provider, provider_options)],
            enable_fallback=0,  # by default, the CPU silently replaces a provider that fails
        )
    except UNLOADABLE as error:
        reason = first_line(error)
        raise EngineError(f"onnxruntime can't load {file} on {provider}: {reason}") from error
    if session.get_providers()[0] != provider:
        raise EngineError(
            f"onnxruntime could not start {provider} for {file}: are its libraries there? "
            f"{install_command(EXTRA_OF_DEVICE[device])}"
        )
    return session
