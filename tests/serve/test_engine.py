"""Both engines give eager PyTorch's answers, and say clearly what input they refuse."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from export.parity import PIXEL_TOLERANCE
from serve.bundle.engine import checks, onnx
from serve.bundle.engine.checks import check_golden
from serve.bundle.engine.chunks import chunk_size
from serve.bundle.engine.onnx import (
    PROVIDERS,
    BoundGraph,
    choose_device,
    open_session,
    provider_options,
)
from serve.bundle.engine.opening import RUNTIMES, available, open_engine
from serve.bundle.engine.protocol import Engine
from serve.bundle.errors import EngineError
from serve.bundle.manifest import Bundle, ImageSpec, Tolerance
from train.dataset import Dataset

WITHOUT_CUDA_PROVIDER = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA"
)
WITHOUT_CUDA_DEVICE = pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")


@pytest.fixture(params=RUNTIMES)
def engine(request: pytest.FixtureRequest, small_bundle: Bundle) -> Engine:
    """Each runtime on the CPU."""
    return open_engine(small_bundle, request.param, "cpu")


def test_golden_answers(engine: Engine, small_bundle: Bundle) -> None:
    """The golden check passes on every engine, and fails where the tolerance is not kept."""
    check_golden(engine, small_bundle)

    strict = replace(small_bundle.manifest, tolerances={"fp32": Tolerance(-1.0, -1.0)})
    with pytest.raises(EngineError, match="golden embeddings differ"):
        check_golden(engine, replace(small_bundle, manifest=strict))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_company_changes_nothing(shipped_bundle: Bundle, digits: Dataset, runtime: str) -> None:
    """An image gets the same answer whatever images come with it, on every device of this host.

    TorchScript on a GPU is the exception: cuDNN chooses other kernels for other batch sizes, which
    add in another order. There a pixel may differ by fp32's tolerance (1.9e-6 on an H100).
    """
    size = 64  # of the longest chunk on a CPU
    images = digits.train_images[: 2 * size + 3].numpy()
    found = available(runtime)
    assert ("cpu", "fp32") in found
    for device in dict.fromkeys(device for device, _ in found):
        engine = open_engine(shipped_bundle, runtime, device)
        expected = engine.embed(images)
        pixels = engine.decode(expected)
        unit = np.sqrt(expected.var(0).mean())
        assert pixels.shape == images.shape

        for batch in (1, 2, 7, size, size + 1):
            starts = range(0, len(images), batch)
            embedded = np.concatenate([engine.embed(images[i : i + batch]) for i in starts])
            decoded = np.concatenate([engine.decode(expected[i : i + batch]) for i in starts])

            assert np.abs(embedded - expected).max() <= 1e-6 * unit
            chosen_by_size = (runtime, device) == ("torchscript", "cuda")
            assert np.abs(decoded - pixels).max() <= (PIXEL_TOLERANCE if chosen_by_size else 1e-6)


def test_chunks_are_smaller_for_larger_images() -> None:
    """A chunk has fewer images if they are larger, so that its memory stays the same."""
    assert chunk_size(64, ImageSpec(1, 28, 28, "auto", "ink")) == 64
    assert chunk_size(64, ImageSpec(3, 56, 56, "auto", "ink")) == 16
    assert chunk_size(64, ImageSpec(3, 999, 999, "auto", "ink")) == 1


def test_providers_are_never_replaced_while_running(small_bundle: Bundle) -> None:
    """Onnxruntime's fallback to the CPU, for a provider that fails in a run, is switched off."""
    session = open_session(small_bundle, "encoder.onnx", "cpu", {}, 1)

    assert not session._enable_fallback


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_memory_is_bounded(small_bundle: Bundle, runtime: str) -> None:
    """100,000 images need little beyond their own bytes: less than 64 MiB more than 1,000 do."""
    program = """
import resource, sys
from pathlib import Path
import numpy as np
from serve.bundle.manifest import load_bundle
from serve.bundle.engine.opening import open_engine
engine = open_engine(load_bundle(Path(sys.argv[1])), sys.argv[2], "cpu")
images = np.ones((100_000, 1, 28, 28), np.uint8)
engine.decode(engine.embed(images[:1_000]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
engine.embed(images)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", program, str(small_bundle.folder), runtime]
    grown_kib = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert grown_kib < 64 * 1024


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_precision_of_this_host_passes_the_golden_check(
    shipped_bundle: Bundle, runtime: str
) -> None:
    """Whatever this host has is opened, says what it is, and gives the golden answers."""
    found = available(runtime)
    assert ("cpu", "fp32") in found
    for device, precision in found:
        engine = open_engine(shipped_bundle, runtime, device, precision)
        assert engine.precision == precision
        check_golden(engine, shipped_bundle)


def test_auto_takes_the_best_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA where there is a GPU, else OpenVINO, else the CPU; CUDA without a GPU is refused."""
    present = list(PROVIDERS.values())
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: present)
    monkeypatch.setattr(onnx, "has_gpu", lambda: True)
    for device in ("cuda", "openvino", "cpu"):
        assert choose_device("auto") == device
        present.remove(PROVIDERS[device])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(onnx, "has_gpu", lambda: False)
    assert choose_device("auto") == "openvino"
    with pytest.raises(EngineError, match="device is cuda, but this host has no NVIDIA driver"):
        choose_device("cuda")


def test_providers_are_told_what_the_engine_promises() -> None:
    """CUDA is given the GPU's number and no TensorFloat-32, OpenVINO the precision, no pinning."""
    cuda = provider_options("cuda", "fp16", 3, 1)
    assert (cuda["device_id"], cuda["use_tf32"]) == ("3", "0")

    for precision, hint in (("fp32", "f32"), ("bf16", "bf16")):
        openvino = provider_options("openvino", precision, 0, 1)
        told = json.loads(openvino["load_config"])["CPU"]
        assert (told["INFERENCE_PRECISION_HINT"], told["ENABLE_CPU_PINNING"]) == (hint, "NO")


def test_precision_that_is_not_offered_is_refused(shipped_bundle: Bundle) -> None:
    """A precision is refused if the device doesn't compute in it, or the manifest lacks it."""
    with pytest.raises(EngineError, match="CPUExecutionProvider computes in fp32, not in bf16"):
        open_engine(shipped_bundle, "onnxruntime", "cpu", "bf16")

    exact = {"fp32": shipped_bundle.manifest.tolerances["fp32"]}
    manifest = replace(shipped_bundle.manifest, tolerances=exact)
    with pytest.raises(EngineError, match="this model is not offered in bf16"):
        open_engine(replace(shipped_bundle, manifest=manifest), "torchscript", "cpu", "bf16")


def test_bf16_needs_a_processor_that_has_it(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 is refused on a processor without it: emulated, it would be slower than fp32."""
    monkeypatch.setattr(checks, "processor_has_bf16", lambda: False)

    with pytest.raises(EngineError, match="AMX or AVX512-BF16"):
        open_engine(shipped_bundle, "torchscript", "cpu", "bf16")


def test_bound_graph_pads_to_powers_of_two(small_bundle: Bundle, digits: Dataset) -> None:
    """A BoundGraph, here on the CPU, gives the session's answers with a buffer per power of two."""
    session = open_session(small_bundle, "encoder.onnx", "cpu", {}, 1)
    graph = BoundGraph(session, "cpu", 0)
    images = digits.test_images[:20].numpy()
    (expected,) = session.run(None, {"images": images})

    for count in (20, 1, 3, 17, 4):
        assert graph(images[:count]) == pytest.approx(expected[:count], abs=1e-5)
    assert sorted(graph._buffers) == [1, 4, 32]


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((1, 28, 28), np.uint8, r"uint8\[N, 1, 28, 28\], N at least 1; got uint8\[1, 28, 28\]"),
        ((0, 1, 28, 28), np.uint8, r"got uint8\[0, 1, 28, 28\]"),
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
        (np.zeros((1, 3), np.float32), r"float32\[N, 2\], N at least 1; got float32\[1, 3\]"),
        (np.zeros((0, 2), np.float32), r"got float32\[0, 2\]"),
        (np.zeros((1, 2)), "got float64"),
        (np.array([[0, np.nan]], np.float32), "finite"),
    ],
)
def test_wrong_embeddings_are_described(engine: Engine, embeddings: np.ndarray, words: str) -> None:
    """The message says what embeddings were expected and what was given."""
    with pytest.raises(EngineError, match=words):
        engine.decode(embeddings)


def test_read_only_arrays_are_taken(engine: Engine) -> None:
    """Engines take read-only arrays, such as views of a request's bytes."""
    images = np.frombuffer(bytes(784), np.uint8).reshape(1, 1, 28, 28)

    assert engine.embed(images).shape == (1, 2)


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        pytest.param("onnxruntime", r"pinhole-autoencoder\[gpu\]", marks=WITHOUT_CUDA_PROVIDER),
        pytest.param("torchscript", "no CUDA device", marks=WITHOUT_CUDA_DEVICE),
    ],
)
def test_cuda_is_never_replaced_silently(small_bundle: Bundle, runtime: str, words: str) -> None:
    """Asking for CUDA where there is none is refused, with what to install."""
    with pytest.raises(EngineError, match=words):
        open_engine(small_bundle, runtime, "cuda")


def test_missing_runtime_is_named(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without onnxruntime gets one line, not a traceback."""
    monkeypatch.setitem(sys.modules, "serve.bundle.engine.onnx", None)

    with pytest.raises(EngineError, match="runtime onnxruntime isn't installed"):
        open_engine(small_bundle, "onnxruntime")


def test_unknown_choices_are_listed(small_bundle: Bundle) -> None:
    """An unknown runtime, device or precision is refused with a list of the known names."""
    with pytest.raises(EngineError, match=f"{', '.join(RUNTIMES)}; got 'tvm'"):
        open_engine(small_bundle, "tvm")
    with pytest.raises(EngineError, match="auto, cpu, openvino, cuda; got 'tpu'"):
        open_engine(small_bundle, "onnxruntime", "tpu")
    with pytest.raises(EngineError, match="fp32, bf16, fp16; got 'int8'"):
        open_engine(small_bundle, "onnxruntime", "cpu", "int8")
