"""Do all forms of the model give eager PyTorch's answers, within stated tolerances?

fp32 has to agree up to summation order. A faster precision rounds more coarsely. It is offered if
it moves embeddings by less than 1 % of their standard deviation on average, and the reconstruction
error by less than 1 %. How far a precision moves the answers is measured on eager PyTorch under
autocast, which rounds like the fast kernels and runs on any host. This measurement sets the
tolerance of the precision, and every engine of this host has to keep within the tolerance.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.errors import ParityError
from serve.bundle.engine.opening import RUNTIMES, available, open_engine
from serve.bundle.engine.protocol import Engine
from serve.bundle.errors import EngineError
from serve.bundle.manifest import Bundle, Golden, Tolerance
from serve.bundle.score import mean_squared_errors
from train.loop import evaluation_size
from train.model import Autoencoder

# The tolerance of a pixel in fp32: float32 sums over 576 products differ with their order.
PIXEL_TOLERANCE = 1e-5
# The tolerance of an embedding in fp32, as a share of the embeddings' standard deviation.
EMBEDDING_TOLERANCE = 1e-4
# The least tolerance of an embedding in fp32, as a share of the greatest embedding: float32 can't
# tell numbers of that size apart more finely.
FLOAT32_ROUNDING = 1e-6
# A faster precision is not offered if it moves embeddings by this share of their standard deviation
# on average, or the mse by this share.
MOST_MOVED = 0.01
# The tolerance of a faster precision is this many times its greatest difference on this host: other
# processors round differently.
MARGIN = 3.0
FASTER = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Parity:
    """How far one form of the model is from eager PyTorch in float32.

    Attributes:
        embedding_max: greatest absolute difference of an embedding's number, in standard deviations
            of the test images' embeddings.
        embedding_mean: mean absolute difference, in the same unit.
        pixel_max: greatest absolute difference of a decoded pixel, pixels in [0, 1].
        pixel_mean: mean absolute difference of the decoded pixels.
        mse_change: change of the mean reconstruction error, as a share of eager PyTorch's.
    """

    embedding_max: float
    embedding_mean: float
    pixel_max: float
    pixel_mean: float
    mse_change: float


class EagerEngine:
    """Eager PyTorch on the CPU in any precision; a serve.bundle.engine.protocol.Engine."""

    def __init__(self, model: Autoencoder, precision: str = "fp32") -> None:
        self._model, self.precision = model, precision
        self.name = "eager PyTorch"

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[N, C, H, W] → float32[N, D]."""
        return self._run(self._model.encode, images)

    def decode(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N, D] → float32[N, C, H, W] in [0, 1]."""
        return self._run(self._model.decode, embeddings)

    def _run(self, half: Callable[[Tensor], Tensor], rows: NDArray[Any]) -> NDArray[np.float32]:
        """Answer in batches, as memory allows."""
        batches = torch.split(
            torch.from_numpy(rows), evaluation_size(self._model.config.image_size)
        )
        dtype = FASTER.get(self.precision, torch.float32)
        autocast = torch.autocast("cpu", dtype, enabled=self.precision in FASTER)
        with torch.inference_mode(), autocast:
            return torch.cat([half(batch).float() for batch in batches]).numpy()


def answer_eagerly(model: Autoencoder, images: NDArray[np.uint8]) -> Golden:
    """Eager PyTorch's answers to uint8[N, C, H, W], on the CPU in float32."""
    eager = EagerEngine(model)
    embeddings = eager.embed(images)
    return Golden(images, embeddings, eager.decode(embeddings))


def judge_precisions(
    model: Autoencoder, expected: Golden, spread: float
) -> tuple[dict[str, Tolerance], dict[str, Parity]]:
    """Decide which precisions are offered, by eager PyTorch's answers in each.

    Args:
        model: the model, on the CPU.
        expected: the model's answers in fp32.
        spread: standard deviation of the test images' embeddings.

    Returns:
        The tolerance of every precision that is offered, by its name; and how far each faster
        precision, offered or not, is from fp32.
    """
    finest = FLOAT32_ROUNDING * float(np.abs(expected.embeddings).max())
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
    """The tolerance of a precision that moves answers so far; None if it moves them too far."""
    if not (parity.embedding_mean < MOST_MOVED and abs(parity.mse_change) < MOST_MOVED):
        return None  # also where half precision overflowed: NaN is below nothing
    return Tolerance(MARGIN * parity.embedding_max * spread, MARGIN * parity.pixel_max)


def check_engines(bundle: Bundle, expected: Golden, spread: float) -> dict[str, Parity]:
    """Compare every engine of this host with eager PyTorch, within its precision's tolerance.

    Raises:
        ParityError: an engine differs by more.
        EngineError: an engine can't start on the CPU.
    """
    return {
        f"{engine.name} {engine.precision}": compare(
            engine, expected, spread, bundle.manifest.tolerances[engine.precision]
        )
        for engine in open_engines(bundle)
    }


def open_engines(bundle: Bundle) -> Iterator[Engine]:
    """Every engine of this host in every precision the bundle is offered in.

    What can't start (an accelerator's library is missing, or a whole runtime) is left out with a
    line on stderr: the bundle still runs elsewhere.

    Raises:
        EngineError: a runtime that is installed can't start on the CPU.
    """
    for runtime in RUNTIMES:
        try:
            choices = available(runtime)
        except EngineError as error:
            print(f"export: {runtime} is left unchecked: {error}", file=sys.stderr)
            continue
        for device, precision in choices:
            if precision in bundle.manifest.tolerances:
                try:
                    yield open_engine(bundle, runtime, device, precision)
                except EngineError as error:
                    if device == "cpu":
                        raise
                    print(f"export: {device} is left unchecked: {error}", file=sys.stderr)


def compare(engine: Engine, expected: Golden, spread: float, tolerance: Tolerance) -> Parity:
    """Measure how far an engine is from eager PyTorch.

    Raises:
        ParityError: the engine differs by more than ``tolerance``.
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
    """How far an engine is from eager PyTorch's answers, ``expected``.

    Args:
        engine: the engine to measure.
        expected: eager PyTorch's answers in fp32.
        spread: standard deviation of the test images' embeddings.
    """
    embeddings = engine.embed(expected.images)
    moved = np.abs(embeddings - expected.embeddings) / spread
    pixels = np.abs(engine.decode(expected.embeddings) - expected.reconstructions)
    mse, expected_mse = (
        float(mean_squared_errors(expected.images, reconstructions).mean())
        for reconstructions in (engine.decode(embeddings), expected.reconstructions)
    )
    return Parity(
        float(moved.max()),
        float(moved.mean()),
        float(pixels.max()),
        float(pixels.mean()),
        mse / expected_mse - 1,
    )


def table(report: Mapping[str, Parity]) -> str:
    """The parity report as text: a line for each form of the model."""
    heading = f"{'difference from eager fp32':<46} {'embedding / sd':^17} {'pixel':^17} {'mse':>8}"
    under = f"{'':<46} {'max':>8} {'mean':>8} {'max':>8} {'mean':>8} {'change':>8}"
    lines = (
        f"  {name:<44} {parity.embedding_max:>8.1e} {parity.embedding_mean:>8.1e} "
        f"{parity.pixel_max:>8.1e} {parity.pixel_mean:>8.1e} {parity.mse_change:>+8.3%}"
        for name, parity in report.items()
    )
    return "\n".join([heading, under, *lines])
