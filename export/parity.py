"""Do all forms of the model give one answer? Eager PyTorch's, within stated tolerances."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ParityError
from serve.bundle import Golden, Tolerance
from serve.engine import Engine
from train.model import Autoencoder

PIXEL_TOLERANCE = 1e-5  # float32 sums over 576 products, in another order
EMBEDDING_TOLERANCE = 1e-4  # of the embeddings' standard deviation


@dataclass(frozen=True)
class Parity:
    """How far one exported form is from eager PyTorch: greatest and mean absolute difference."""

    embedding_max: float
    embedding_mean: float
    pixel_max: float
    pixel_mean: float


@torch.inference_mode()
def answer_eagerly(model: Autoencoder, images: NDArray[np.uint8]) -> Golden:
    """What eager PyTorch makes of uint8[N, C, H, W], on the CPU in float32."""
    z = model.encode(torch.from_numpy(images))
    return Golden(images, z.numpy(), model.decode(z).numpy())


def tolerance_for(golden: Golden) -> Tolerance:
    """What still counts as equal, on the scale of this model's embeddings."""
    spread = float(golden.embeddings.std())
    return Tolerance(embedding=EMBEDDING_TOLERANCE * spread, pixel=PIXEL_TOLERANCE)


def compare(engine: Engine, golden: Golden, tolerance: Tolerance) -> Parity:
    """Measure one engine against eager answers.

    Raises:
        ParityError: it differs by more than the tolerance.
    """
    embedding_gap = np.abs(engine.embed(golden.images) - golden.embeddings)
    pixel_gap = np.abs(engine.decode(golden.embeddings) - golden.reconstructions)
    parity = Parity(
        *(float(f(gap)) for gap in (embedding_gap, pixel_gap) for f in (np.max, np.mean))
    )
    for what, worst, limit in (
        ("embeddings", parity.embedding_max, tolerance.embedding),
        ("pixels", parity.pixel_max, tolerance.pixel),
    ):
        if not worst <= limit:
            raise ParityError(
                f"{engine.name} and eager PyTorch disagree: {what} by {worst:.2g}, "
                f"over the {limit:.2g} allowed; nothing was written"
            )
    return parity
