"""What every peer runs: the bundle's encoder on onnxruntime, on files that Pillow reads."""

import io
import os
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image


class Encoder:
    """File → pixels → embedding. The variable BUNDLE names a folder that python -m export wrote."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            Path(os.environ["BUNDLE"]) / "encoder.onnx",
            options,
            providers=["CPUExecutionProvider"],
        )
        *_, height, width = self._session.get_inputs()[0].shape
        self._size = (width, height)

    def read(self, file: bytes) -> NDArray[np.uint8]:
        """An image file → uint8[1, H, W], stretched to the model's size."""
        return np.asarray(Image.open(io.BytesIO(file)).convert("L").resize(self._size))[None]

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[N, 1, H, W] → float32[N, D]."""
        return self._session.run(["embeddings"], {"images": images})[0]
