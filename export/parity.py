"""Do all forms of the model give one answer? Eager PyTorch's, within stated tolerances.

fp32 has to agree up to summation order. A faster precision rounds more coarsely: it is offered if
it moves embeddings by less than 1 % of their standard deviation and the reconstruction error by
less than 1 %. What it moves is measured on eager PyTorch under autocast, which rounds like the
fast kernels and runs on any host; every engine of this host is then held to that.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ParityError
from serve.bundle import Golden, Tolerance
from serve.engine import Engine
from train.model import Autoencoder

PIXEL_TOLERANCE = 1e-5  # float32 sums over 576 products, in another order
EMBEDDING_TOLERANCE = 1e-4  # of the embeddings' standard deviation,
ROUNDING = 1e-6  # or of the greatest embedding, where float32 can't tell finer
MOST_MOVED = 0.01  # by a faster precision: of that deviation on average, and of the mse
MARGIN = 3.0  # times what a precision moved at most: other processors round elsewhere
FASTER = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Scale:
    """What differences are measured in: what the model does with held-out images.

    Attributes:
        embedding: standard deviation of the embeddings, over all D numbers.
        mse: mean reconstruction error.
    """

    embedding: float
    mse: float


@dataclass(frozen=True)
class Parity:
    """How far one form of the model is from eager PyTorch in float32.

    Attributes:
        embedding_max: greatest difference, in standard deviations of the embeddings.
        embedding_mean: mean absolute difference, likewise.
        pixel_max: greatest difference of a decoded pixel in [0, 1].
        pixel_mean: mean absolute difference, likewise.
        mse_change: of the reconstruction error, as a share of that of held-out images.
    """

    embedding_max: float
    embedding_mean: float
    pixel_max: float
    pixel_mean: float
    mse_change: float


class EagerEngine:
    """Eager PyTorch on the CPU in any precision; see serve.engine.Engine."""

    def __init__(self, model: Autoencoder, precision: str = "fp32") -> None:
        self._model, self.precision = model, precision
        self.name = "eager PyTorch"

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[N, C, H, W] → float32[N, D]."""
        with torch.inference_mode(), self._autocast():
            return self._model.encode(torch.from_numpy(images)).float().numpy()

    def decode(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N, D] → float32[N, C, H, W] in [0, 1]."""
        with torch.inference_mode(), self._autocast():
            return self._model.decode(torch.from_numpy(embeddings)).float().numpy()

    def _autocast(self) -> torch.autocast:
        dtype = FASTER.get(self.precision, torch.float32)
        return torch.autocast("cpu", dtype, enabled=self.precision in FASTER)


def answer_eagerly(model: Autoencoder, images: NDArray[np.uint8]) -> Golden:
    """What eager PyTorch makes of uint8[N, C, H, W], on the CPU in float32."""
    eager = EagerEngine(model)
    embeddings = eager.embed(images)
    return Golden(images, embeddings, eager.decode(embeddings))


def measure(engine: Engine, expected: Golden, scale: Scale) -> Parity:
    """Compare an engine with eager PyTorch's answers."""
    embeddings = engine.embed(expected.images)
    moved = np.abs(embeddings - expected.embeddings) / scale.embedding
    pixels = np.abs(engine.decode(expected.embeddings) - expected.reconstructions)
    originals = expected.images / np.float32(255)
    mse, expected_mse = (
        float(np.square(drawn - originals).mean())
        for drawn in (engine.decode(embeddings), expected.reconstructions)
    )
    return Parity(
        float(moved.max()),
        float(moved.mean()),
        float(pixels.max()),
        float(pixels.mean()),
        (mse - expected_mse) / scale.mse,
    )


def exact(expected: Golden, scale: Scale) -> Tolerance:
    """What counts as the same answer in fp32."""
    finest = ROUNDING * float(np.abs(expected.embeddings).max())
    return Tolerance(max(EMBEDDING_TOLERANCE * scale.embedding, finest), PIXEL_TOLERANCE)


def rounded(parity: Parity, scale: Scale) -> Tolerance | None:
    """What counts as the same answer in a precision that moves so much; None if that is too far."""
    if max(parity.embedding_mean, abs(parity.mse_change)) >= MOST_MOVED:
        return None
    return Tolerance(MARGIN * parity.embedding_max * scale.embedding, MARGIN * parity.pixel_max)


def compare(engine: Engine, expected: Golden, scale: Scale, tolerance: Tolerance) -> Parity:
    """Measure an engine, and hold it to what its precision may move.

    Raises:
        ParityError: it differs by more.
    """
    parity = measure(engine, expected, scale)
    for what, worst, limit in (
        ("embeddings", parity.embedding_max * scale.embedding, tolerance.embedding),
        ("pixels", parity.pixel_max, tolerance.pixel),
    ):
        if not worst <= limit:
            raise ParityError(
                f"{engine.name} in {engine.precision} and eager PyTorch disagree: {what} by "
                f"{worst:.2g}, over the {limit:.2g} allowed; nothing was written"
            )
    return parity


def table(report: Iterable[tuple[str, Parity]]) -> str:
    """The parity report for people: a line for each form."""
    heading = f"{'difference from eager fp32':<46} {'embedding / sd':^17} {'pixel':^17} {'mse':>8}"
    under = f"{'':<46} {'max':>8} {'mean':>8} {'max':>8} {'mean':>8} {'change':>8}"
    lines = (
        f"  {name:<44} {parity.embedding_max:>8.1e} {parity.embedding_mean:>8.1e} "
        f"{parity.pixel_max:>8.1e} {parity.pixel_mean:>8.1e} {parity.mse_change:>+8.3%}"
        for name, parity in report
    )
    return "\n".join([heading, under, *lines])
