"""Do all forms of the model give one answer? Eager PyTorch's, within stated tolerances.

fp32 has to agree up to summation order. A faster precision rounds more coarsely: it is offered if
it moves embeddings by less than 1 % of their standard deviation on average, and the reconstruction
error by less than 1 %. What it moves is measured on eager PyTorch under autocast, which rounds
like the fast kernels and runs on any host; every engine of this host is then held to that.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ParityError
from serve.bundle import Bundle, Golden, Tolerance
from serve.engine import RUNTIMES, Engine, available, open_engine
from serve.errors import EngineError
from train.model import Autoencoder

PIXEL_TOLERANCE = 1e-5  # float32 sums over 576 products, in another order
EMBEDDING_TOLERANCE = 1e-4  # of the embeddings' standard deviation,
ROUNDING = 1e-6  # or of the greatest embedding, where float32 can't tell finer
MOST_MOVED = 0.01  # by a faster precision: of that deviation on average, and of the mse
MARGIN = 3.0  # times what a precision moved at most: other processors round elsewhere
FASTER = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Parity:
    """How far one form of the model is from eager PyTorch in float32.

    Attributes:
        embedding_max: greatest difference, in standard deviations of the test set's embeddings.
        embedding_mean: mean absolute difference, likewise.
        pixel_max: greatest difference of a decoded pixel in [0, 1].
        pixel_mean: mean absolute difference, likewise.
        mse_change: of the reconstruction error, as a share of it.
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


def judge_precisions(
    model: Autoencoder, expected: Golden, spread: float
) -> tuple[dict[str, Tolerance], dict[str, Parity]]:
    """Which precisions to offer, and what each moves, on eager PyTorch.

    Args:
        model: to judge.
        expected: its answers in fp32.
        spread: standard deviation of the test set's embeddings.
    """
    finest = ROUNDING * float(np.abs(expected.embeddings).max())
    tolerances = {"fp32": Tolerance(max(EMBEDDING_TOLERANCE * spread, finest), PIXEL_TOLERANCE)}
    report = {}
    for precision in FASTER:
        parity = measure(EagerEngine(model, precision), expected, spread)
        report[f"eager PyTorch {precision}"] = parity
        tolerance = tolerance_for(parity, spread)
        if tolerance is not None:
            tolerances[precision] = tolerance
    return tolerances, report


def tolerance_for(parity: Parity, spread: float) -> Tolerance | None:
    """What counts as the same answer in a precision that moves so much; None if that is too far."""
    if max(parity.embedding_mean, abs(parity.mse_change)) >= MOST_MOVED:
        return None
    return Tolerance(MARGIN * parity.embedding_max * spread, MARGIN * parity.pixel_max)


def check_engines(bundle: Bundle, expected: Golden, spread: float) -> dict[str, Parity]:
    """Hold every engine of this host to what its precision may move.

    Raises:
        ParityError: one differs by more.
    """
    return {
        f"{engine.name} {engine.precision}": compare(
            engine, expected, spread, bundle.manifest.tolerances[engine.precision]
        )
        for engine in open_engines(bundle)
    }


def open_engines(bundle: Bundle) -> Iterator[Engine]:
    """Every engine of this host in every precision the bundle is offered in.

    An accelerator that can't start (a library is missing, say) is told of and left out: the bundle
    is none the worse for it.

    Raises:
        EngineError: the CPU can't start.
    """
    for runtime in RUNTIMES:
        for device, precision in available(runtime):
            if precision in bundle.manifest.tolerances:
                try:
                    yield open_engine(bundle, runtime, device, precision)
                except EngineError as error:
                    if device == "cpu":
                        raise
                    print(f"export: {device} is left unchecked: {error}", file=sys.stderr)


def compare(engine: Engine, expected: Golden, spread: float, tolerance: Tolerance) -> Parity:
    """Measure an engine, and hold it to a tolerance.

    Raises:
        ParityError: it differs by more.
    """
    parity = measure(engine, expected, spread)
    for what, worst, limit in (
        ("embeddings", parity.embedding_max * spread, tolerance.embedding),
        ("pixels", parity.pixel_max, tolerance.pixel),
    ):
        if not worst <= limit:
            raise ParityError(
                f"{engine.name} in {engine.precision} and eager PyTorch disagree: {what} by "
                f"{worst:.2g}, over the {limit:.2g} allowed; nothing was written"
            )
    return parity


def measure(engine: Engine, expected: Golden, spread: float) -> Parity:
    """Compare an engine with eager PyTorch's answers."""
    embeddings = engine.embed(expected.images)
    moved = np.abs(embeddings - expected.embeddings) / spread
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
        mse / expected_mse - 1,
    )


def table(report: Mapping[str, Parity]) -> str:
    """The parity report for people: a line for each form."""
    heading = f"{'difference from eager fp32':<46} {'embedding / sd':^17} {'pixel':^17} {'mse':>8}"
    under = f"{'':<46} {'max':>8} {'mean':>8} {'max':>8} {'mean':>8} {'change':>8}"
    lines = (
        f"  {name:<44} {parity.embedding_max:>8.1e} {parity.embedding_mean:>8.1e} "
        f"{parity.pixel_max:>8.1e} {parity.pixel_mean:>8.1e} {parity.mse_change:>+8.3%}"
        for name, parity in report.items()
    )
    return "\n".join([heading, under, *lines])
