"""The onnxruntime engine: CUDA or CPU, by name, never by silent fallback."""

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serve.bundle import Bundle
from serve.engine import CHUNK, check_embeddings, check_images, usable_cores
from serve.errors import EngineError

# TensorFloat-32 keeps 10 bits of a float32's 23: not what fp32 promises.
PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}


class OnnxEngine:
    """encoder.onnx and decoder.onnx in two onnxruntime sessions; see serve.engine.Engine."""

    precision = "fp32"

    def __init__(self, bundle: Bundle, device: str) -> None:
        provider = choose_provider(device)
        self._spec = bundle.manifest.image
        self._width = bundle.manifest.embedding_width
        self._encoder = open_session(bundle, "encoder.onnx", provider)
        self._decoder = open_session(bundle, "decoder.onnx", provider)
        self.name = f"onnxruntime {provider}"

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[N, C, H, W] → float32[N, D]."""
        check_images(images, self._spec)
        return run_chunks(self._encoder, images, (self._width,))

    def decode(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N, D] → float32[N, C, H, W] in [0, 1]."""
        check_embeddings(embeddings, self._width)
        return run_chunks(self._decoder, embeddings, self._spec.shape)


def choose_provider(device: str) -> str:
    """Resolve ``auto | cpu | cuda`` to the execution provider to use.

    Raises:
        EngineError: CUDA was asked for and this onnxruntime hasn't got it.
    """
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise EngineError(
            "device is cuda, but this onnxruntime has no CUDA provider: "
            "install pinhole[gpu] in place of pinhole[cpu]"
        )
    use_cuda = has_cuda and device != "cpu"
    return "CUDAExecutionProvider" if use_cuda else "CPUExecutionProvider"


def open_session(bundle: Bundle, file: str, provider: str) -> onnxruntime.InferenceSession:
    """Load one graph onto one provider.

    Raises:
        EngineError: the graph can't be loaded, or the provider couldn't start (no driver, say)
            and onnxruntime fell back to another.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    # Idle threads would spin for the next request, on cores that other workers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: one line for us, not one per node
    try:
        session = onnxruntime.InferenceSession(
            str(bundle.folder / file), options, providers=[(provider, PROVIDER_OPTIONS[provider])]
        )
    except (RuntimeError, ValueError) as error:  # onnxruntime's own exceptions derive from these
        raise EngineError(f"onnxruntime can't load {file} on {provider}: {error}") from error
    if session.get_providers()[0] != provider:
        raise EngineError(f"onnxruntime could not start {provider} for {file}")
    return session


def run_chunks(
    session: onnxruntime.InferenceSession,
    rows: NDArray[np.uint8] | NDArray[np.float32],
    row_shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """Run a graph of one input and one output over ``rows``, CHUNK at a time."""
    result = np.empty((len(rows), *row_shape), np.float32)
    input_name = session.get_inputs()[0].name
    for start in range(0, len(rows), CHUNK):
        chunk = np.ascontiguousarray(rows[start : start + CHUNK])
        result[start : start + CHUNK] = session.run(None, {input_name: chunk})[0]
    return result
