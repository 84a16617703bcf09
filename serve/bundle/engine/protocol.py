"""What an engine is, and the names of devices and precisions."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

DEVICES = ("auto", "cpu", "openvino", "cuda")
PRECISIONS = ("fp32", "bf16", "fp16")


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
        """float32[N, D] → float32[N, C, H, W] in [0, 1]. Raises EngineError for any other array."""
