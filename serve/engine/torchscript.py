"""The TorchScript engine: CUDA or CPU, for hosts that already run PyTorch."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from serve.bundle import Bundle
from serve.engine import CHUNK, check_embeddings, check_images, usable_cores
from serve.errors import EngineError


class TorchScriptEngine:
    """autoencoder.ts; see serve.engine.Engine."""

    precision = "fp32"

    def __init__(self, bundle: Bundle, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise EngineError("device is cuda, but this torch finds no CUDA device")
        use_cuda = torch.cuda.is_available() and device != "cpu"
        self._device = torch.device("cuda" if use_cuda else "cpu")
        self._spec = bundle.manifest.image
        self._width = bundle.manifest.embedding_width
        torch.set_num_threads(usable_cores())
        torch.backends.cudnn.allow_tf32 = False  # 10 bits of a float32's 23 are not fp32
        self._model = load_script(bundle, self._device)
        self.name = f"torchscript {self._device}"

    @torch.inference_mode()
    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[N, C, H, W] → float32[N, D]."""
        check_images(images, self._spec)
        result = np.empty((len(images), self._width), np.float32)
        for start in range(0, len(images), CHUNK):
            chunk = self._to_device(images[start : start + CHUNK])
            result[start : start + CHUNK] = self._model.encode(chunk).cpu().numpy()
        return result

    @torch.inference_mode()
    def decode(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N, D] → float32[N, C, H, W] in [0, 1]."""
        check_embeddings(embeddings, self._width)
        result = np.empty((len(embeddings), *self._spec.shape), np.float32)
        for start in range(0, len(embeddings), CHUNK):
            chunk = self._to_device(embeddings[start : start + CHUNK])
            result[start : start + CHUNK] = self._model.decode(chunk).cpu().numpy()
        return result

    def _to_device(self, rows: NDArray[np.uint8] | NDArray[np.float32]) -> torch.Tensor:
        # A copy where the array is read-only (numpy views of request bytes are): torch warns.
        return torch.from_numpy(np.require(rows, requirements=["C", "W"])).to(self._device)


def load_script(bundle: Bundle, device: torch.device) -> torch.jit.ScriptModule:
    """Load autoencoder.ts.

    Raises:
        EngineError: torch can't read it.
    """
    path = bundle.folder / "autoencoder.ts"
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated, not gone; the bundle's format promises TorchScript.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.jit")
            model: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location=device
            )
    except RuntimeError as error:
        raise EngineError(f"torch can't load {path.name}: {error}") from error
    return model.eval()
