"""Check that an array fits the model, that a precision is offered, and that answers are right.

Both engines check their input here, so that they say the same thing about a wrong array.
"""

import numpy as np
from numpy.typing import NDArray

from serve.bundle.engine.host import processor_has_bf16
from serve.bundle.engine.protocol import Engine
from serve.bundle.errors import EngineError
from serve.bundle.manifest import Bundle


def check_images(images: NDArray[np.uint8], shape: tuple[int, int, int]) -> None:
    """Raise EngineError unless ``images`` is uint8[N, C, H, W] of this shape, N at least 1."""
    if images.dtype != np.uint8 or images.shape[1:] != shape or len(images) == 0:
        raise EngineError(
            f"expected uint8[N, {', '.join(map(str, shape))}], N at least 1; "
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


def check_precision(precision: str, offered: tuple[str, ...], where: str) -> None:
    """Raise EngineError unless this runtime, device and processor compute in ``precision``."""
    if precision not in offered:
        raise EngineError(
            f"{where} computes in {' or '.join(offered)}, not in {precision}; bf16 is offered by "
            "device openvino and by runtime torchscript, fp16 by device cuda"
        )
    if precision == "bf16" and not processor_has_bf16():
        raise EngineError("precision bf16 needs a processor with AMX or AVX512-BF16: use fp32")


def check_golden(engine: Engine, bundle: Bundle) -> None:
    """Prove that an engine gives eager PyTorch's answers on the bundle's golden images.

    Raises:
        EngineError: the answers differ; the message says by how much.
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
