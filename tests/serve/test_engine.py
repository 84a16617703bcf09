"""Both engines give eager PyTorch's answers, and say clearly what they don't take."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from serve.bundle import Bundle, Tolerance
from serve.engine import CHUNK, RUNTIMES, Engine, check_golden, open_engine
from serve.errors import EngineError
from train.data import Dataset

WITHOUT_CUDA_PROVIDER = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA"
)
WITHOUT_CUDA_DEVICE = pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")


@pytest.fixture(params=RUNTIMES)
def engine(request: pytest.FixtureRequest, small_bundle: Bundle) -> Engine:
    """Each runtime on the CPU."""
    return open_engine(small_bundle, request.param, "cpu")


def test_golden_answers(engine: Engine, small_bundle: Bundle) -> None:
    """The check passes, and can fail."""
    check_golden(engine, small_bundle)

    strict = replace(small_bundle.manifest, tolerances={"fp32": Tolerance(-1.0, -1.0)})
    with pytest.raises(EngineError, match="golden embeddings differ"):
        check_golden(engine, replace(small_bundle, manifest=strict))


def test_chunks_change_nothing(engine: Engine, small_bundle: Bundle, digits: Dataset) -> None:
    """More images than one chunk holds give the answers each gets alone."""
    images = digits.train_images[: CHUNK + 3].numpy()

    allowed = small_bundle.manifest.tolerances["fp32"].embedding
    together = engine.embed(images)

    assert together.shape == (CHUNK + 3, 2)
    for index in (0, CHUNK - 1, CHUNK, CHUNK + 2):
        alone = engine.embed(images[index : index + 1])
        assert together[index] == pytest.approx(alone[0], abs=allowed)
    assert engine.decode(together).shape == (CHUNK + 3, 1, 28, 28)


def test_nothing_in_nothing_out(engine: Engine) -> None:
    """An empty batch is an empty answer of the right shape."""
    assert engine.embed(np.zeros((0, 1, 28, 28), np.uint8)).shape == (0, 2)
    assert engine.decode(np.zeros((0, 2), np.float32)).shape == (0, 1, 28, 28)


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((1, 28, 28), np.uint8, r"uint8\[N, 1, 28, 28\]; got uint8\[1, 28, 28\]"),
        ((1, 3, 28, 28), np.uint8, r"got uint8\[1, 3, 28, 28\]"),
        ((1, 1, 28, 28), np.float32, r"got float32"),
    ],
)
def test_wrong_images_are_described(
    engine: Engine, shape: tuple[int, ...], dtype: type, words: str
) -> None:
    """The message states what was expected and what was given."""
    with pytest.raises(EngineError, match=words):
        engine.embed(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("embeddings", "words"),
    [
        (np.zeros((1, 3), np.float32), r"float32\[N, 2\]; got float32\[1, 3\]"),
        (np.zeros((1, 2)), "got float64"),
        (np.array([[0, np.nan]], np.float32), "finite"),
    ],
)
def test_wrong_embeddings_are_described(engine: Engine, embeddings: np.ndarray, words: str) -> None:
    """Likewise for what decode takes."""
    with pytest.raises(EngineError, match=words):
        engine.decode(embeddings)


def test_read_only_arrays_are_taken(engine: Engine) -> None:
    """Views of a request's bytes can't be written to; engines only read."""
    images = np.frombuffer(bytes(784), np.uint8).reshape(1, 1, 28, 28)

    assert engine.embed(images).shape == (1, 2)


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        pytest.param("onnxruntime", r"pinhole\[gpu\]", marks=WITHOUT_CUDA_PROVIDER),
        pytest.param("torchscript", "no CUDA device", marks=WITHOUT_CUDA_DEVICE),
    ],
)
def test_cuda_is_never_replaced_silently(small_bundle: Bundle, runtime: str, words: str) -> None:
    """Asking for CUDA where there is none is refused, with what to install."""
    with pytest.raises(EngineError, match=words):
        open_engine(small_bundle, runtime, "cuda")


def test_unknown_choices_are_listed(small_bundle: Bundle) -> None:
    """The message lists what there is."""
    with pytest.raises(EngineError, match="onnxruntime, torchscript; got 'tvm'"):
        open_engine(small_bundle, "tvm")
    with pytest.raises(EngineError, match="auto, cpu, cuda; got 'tpu'"):
        open_engine(small_bundle, "onnxruntime", "tpu")
