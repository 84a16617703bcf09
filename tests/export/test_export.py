"""A checkpoint becomes a bundle that gives the same answers."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export import parity
from export.__main__ import export, main, model_digest
from export.errors import ExportError, ParityError
from export.parity import EagerEngine, Parity, answer_eagerly, compare, tolerance_for
from serve.bundle.engine.opening import open_engine
from serve.bundle.errors import EngineError
from serve.bundle.manifest import FILES, Bundle, Golden, Tolerance
from train.checkpoint import load_checkpoint, save_checkpoint
from train.dataset import Dataset

ROOT = Path(__file__).parent.parent.parent
SHIPPED = ROOT / "weights" / "mnist"
NAN = float("nan")
CPU = ["CPUExecutionProvider"]


def test_bundle_is_complete(small_bundle: Bundle) -> None:
    """Every file of the format, and nothing else."""
    names = {path.name for path in small_bundle.folder.iterdir()}

    assert names == {*FILES, "manifest.json"}


@pytest.mark.parametrize("count", [1, 2, 7, 64, 1_000])
def test_graphs_run_in_plain_onnxruntime(
    small_bundle: Bundle, small_checkpoint: Path, digits: Dataset, count: int
) -> None:
    """The files alone give eager PyTorch's answers, for any batch size."""
    images = digits.train_images[:count]
    model = load_checkpoint(small_checkpoint).model
    encoder, decoder = (
        onnxruntime.InferenceSession(small_bundle.folder / name, providers=CPU)
        for name in ("encoder.onnx", "decoder.onnx")
    )

    (embeddings,) = encoder.run(["embeddings"], {"images": images.numpy()})
    allowed = small_bundle.manifest.tolerances["fp32"]
    eager = answer_eagerly(model, images.numpy())
    assert embeddings == pytest.approx(eager.embeddings, abs=allowed.embedding)
    (decoded,) = decoder.run(["images"], {"embeddings": eager.embeddings})
    assert decoded == pytest.approx(eager.reconstructions, abs=allowed.pixel)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
def test_torchscript_has_its_three_methods(small_bundle: Bundle, digits: Dataset) -> None:
    """The file alone has encode, decode and forward."""
    script = torch.jit.load(str(small_bundle.folder / "autoencoder.ts"))
    images = digits.test_images[:5]

    assert torch.equal(script(images), script.decode(script.encode(images)))


def test_digest_is_of_the_model_alone(
    small_bundle: Bundle, small_checkpoint: Path, tmp_path: Path
) -> None:
    """Exporting again gives the same digest; another calibration gives another digest."""
    again = export(small_checkpoint, tmp_path / "again", "2.0")
    assert again.manifest.digest == small_bundle.manifest.digest

    shutil.copytree(small_checkpoint, tmp_path / "checkpoint")
    card_file = tmp_path / "checkpoint" / "card.json"
    card = json.loads(card_file.read_text())
    card["calibration"]["mse_quantiles"][100] += 0.001
    card_file.write_text(json.dumps(card))
    other = export(tmp_path / "checkpoint", tmp_path / "other", "1.0")
    assert other.manifest.digest != small_bundle.manifest.digest


def test_digest_knows_every_slope(small_bundle: Bundle, small_checkpoint: Path) -> None:
    """Two networks that differ in a single LeakyReLU's slope alone have different digests."""
    manifest, model = small_bundle.manifest, load_checkpoint(small_checkpoint).model
    assert model_digest(model, manifest.image, manifest.calibration) == manifest.digest

    model.encoder.convolutions[1] = torch.nn.LeakyReLU(0.2)
    assert model_digest(model, manifest.image, manifest.calibration) != manifest.digest


def test_layer_that_cannot_be_rewritten_is_one_line(
    small_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command names the layer on a single line, exits 1 and writes nothing."""
    checkpoint = load_checkpoint(small_checkpoint)
    checkpoint.model.decoder.convolutions.insert(1, torch.nn.Dropout()).eval()
    monkeypatch.setattr("export.__main__.load_checkpoint", lambda folder: checkpoint)

    assert main([str(small_checkpoint), "--out", str(tmp_path / "bundle")]) == 1

    error = capsys.readouterr().err
    assert error.startswith("export: can't rewrite decoder.convolutions.1 (Dropout): ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_disagreement_is_an_error(small_bundle: Bundle) -> None:
    """An engine that differs from the golden answers is refused, with the difference."""
    golden = small_bundle.golden()
    wrong = Golden(golden.images, golden.embeddings + np.float32(0.5), golden.reconstructions)
    engine = open_engine(small_bundle, "onnxruntime", "cpu")

    with pytest.raises(ParityError, match=r"fp32 and eager PyTorch disagree: embeddings by 0\.5"):
        compare(engine, wrong, 1.0, Tolerance(embedding=1e-3, pixel=1e-5))


def test_precision_that_moves_too_much_is_not_offered() -> None:
    """1 % of the embeddings' deviation or of the mse is too much; less gives a tolerance."""
    kept = tolerance_for(Parity(0.02, 0.009, 0.03, 0.001, -0.009), spread=2.0)
    assert kept == Tolerance(pytest.approx(0.12), pytest.approx(0.09))
    assert tolerance_for(Parity(0.02, 0.011, 0.03, 0.001, 0.0), spread=2.0) is None
    assert tolerance_for(Parity(0.02, 0.001, 0.03, 0.001, -0.011), spread=2.0) is None
    assert tolerance_for(Parity(NAN, NAN, 0.03, 0.001, 0.0), spread=2.0) is None
    assert tolerance_for(Parity(0.02, 0.001, NAN, NAN, NAN), spread=2.0) is None


def test_half_precision_graphs_give_half_precision_answers(
    shipped_bundle: Bundle, tmp_path: Path
) -> None:
    """The .fp16 graphs have the same inputs and outputs, and keep within the fp16 tolerance.

    They run on the CPU here, which stores every intermediate tensor in half precision, as CUDA
    would.
    """
    golden, allowed = shipped_bundle.golden(), shipped_bundle.manifest.tolerances["fp16"]
    encoder, decoder = (
        onnxruntime.InferenceSession(shipped_bundle.folder / f"{half}.fp16.onnx", providers=CPU)
        for half in ("encoder", "decoder")
    )

    (embeddings,) = encoder.run(["embeddings"], {"images": golden.images})
    (images,) = decoder.run(["images"], {"embeddings": golden.embeddings})

    assert 0 < np.abs(embeddings - golden.embeddings).max() <= allowed.embedding
    assert 0 < np.abs(images - golden.reconstructions).max() <= allowed.pixel


@pytest.mark.parametrize("name", ["encoder", "decoder", "encoder.fp16", "decoder.fp16"])
def test_graphs_say_what_they_take(small_bundle: Bundle, name: str) -> None:
    """Inputs and outputs have names, types and any batch size, and a note describes them."""
    graph = onnx.load(small_bundle.folder / f"{name}.onnx")

    pixels = onnx.TensorProto.UINT8 if name.startswith("encoder") else onnx.TensorProto.FLOAT
    images = ("images", pixels, ("batch", 1, 28, 28))
    embeddings = ("embeddings", onnx.TensorProto.FLOAT, ("batch", 2))
    found = [
        (
            value.name,
            value.type.tensor_type.elem_type,
            tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim),
        )
        for value in (*graph.graph.input, *graph.graph.output)
    ]
    encodes = name.startswith("encoder")
    assert found == ([images, embeddings] if encodes else [embeddings, images])
    kind = "uint8" if encodes else "float32"
    assert f"{kind}[batch, 1, 28, 28]" in graph.doc_string
    assert "float32[batch, 2]" in graph.doc_string
    assert ("half precision" in graph.doc_string) == name.endswith("fp16")


def test_manifest_follows_its_schema(small_bundle: Bundle) -> None:
    """manifest.schema.json describes what export writes, and every key is required."""
    schema = json.loads((ROOT / "serve" / "bundle" / "manifest.schema.json").read_text())
    manifest = json.loads((small_bundle.folder / "manifest.json").read_text())

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(manifest, schema)
    for key in manifest:
        with pytest.raises(jsonschema.ValidationError, match=key):
            jsonschema.validate({k: v for k, v in manifest.items() if k != key}, schema)


def test_faster_precision_keeps_the_test_error(mnist: Dataset, shipped_bundle: Bundle) -> None:
    """Precisions are judged on warped reconstructions; on handwriting they change under 1 % too."""
    checkpoint = load_checkpoint(SHIPPED)
    images = mnist.test_images[:1_000].numpy()
    eager = EagerEngine(checkpoint.model)
    expected = eager.embed(images)
    originals = images / np.float32(255)
    mse = np.square(eager.decode(expected) - originals).mean()

    for precision in set(shipped_bundle.manifest.tolerances) - {"fp32"}:
        engine = EagerEngine(checkpoint.model, precision)
        embeddings = engine.embed(images)
        moved = np.abs(embeddings - expected).mean(0) / expected.std(0)
        assert moved.max() < 0.01
        changed = np.square(engine.decode(embeddings) - originals).mean()
        assert abs(changed - mse) < 0.01 * mse


def test_failed_export_writes_nothing(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If parity fails, no folder appears, not even one without a manifest."""
    monkeypatch.setattr("export.parity.PIXEL_TOLERANCE", -1.0)  # nothing can pass

    with pytest.raises(ParityError, match="pixels"):
        export(small_checkpoint, tmp_path / "bundle", "1.0")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_accelerator_that_cannot_start_is_left_out(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An accelerator that can't start costs a line on stderr; a CPU that can't is an error."""
    monkeypatch.setattr(parity, "available", lambda runtime: [("cuda", "fp32"), ("cpu", "fp32")])
    monkeypatch.setattr(parity, "RUNTIMES", ("onnxruntime", "torchscript"))
    engines = list(parity.open_engines(small_bundle))

    assert [engine.name.split()[1] for engine in engines] == ["CPUExecutionProvider", "cpu"]
    assert capsys.readouterr().err.count("cuda is left unchecked: ") == 2

    (small_bundle.folder / "encoder.onnx").rename(small_bundle.folder / "away")
    try:
        with pytest.raises(EngineError, match=r"can't load encoder\.onnx"):
            list(parity.open_engines(small_bundle))
    finally:
        (small_bundle.folder / "away").rename(small_bundle.folder / "encoder.onnx")


def test_runtime_that_is_not_installed_is_left_out(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host without one of the runtimes exports all the same, and says what it didn't check."""
    monkeypatch.setitem(sys.modules, "serve.bundle.engine.torchscript", None)

    engines = list(parity.open_engines(small_bundle))

    assert all(engine.name.startswith("onnxruntime") for engine in engines)
    assert len(engines) >= 1
    assert "torchscript is left unchecked: runtime torchscript isn't" in capsys.readouterr().err


def test_missing_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says which file is missing and exits 1."""
    assert main([str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 1

    error = capsys.readouterr().err
    assert error.startswith("export: ")
    assert "card.json is missing" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("version", ["", "1.2\r", "a b", "\u03b2", "v" * 65])
def test_version_that_no_header_takes_is_a_usage_error(
    tmp_path: Path, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the checkpoint is read: the bundle couldn't be served."""
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--out", str(tmp_path / "b"), f"--model-version={version}"])

    assert "argument --model-version: must be 1 to 64 printable ASCII" in capsys.readouterr().err


def test_a_model_that_tells_nothing_apart_is_refused(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    """Where all test images have one embedding, there is no distance to measure an error by."""
    checkpoint = load_checkpoint(small_checkpoint)
    same = np.full_like(checkpoint.embeddings, 0.1)
    save_checkpoint(tmp_path / "same", replace(checkpoint, embeddings=same))

    with pytest.raises(ExportError, match="same embedding"):
        export(tmp_path / "same", tmp_path / "bundle", "1.0")
