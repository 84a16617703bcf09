"""From a checkpoint to a bundle that gives the same answers."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from export.__main__ import export, main
from export.errors import ParityError
from export.parity import answer_eagerly, compare
from serve.bundle import FILES, Bundle, Golden, Tolerance
from serve.engine import open_engine
from train.checkpoint import load_checkpoint
from train.data import Dataset


def test_bundle_is_complete(small_bundle: Bundle) -> None:
    """Every file of the format, and nothing else."""
    names = {path.name for path in small_bundle.folder.iterdir()}

    assert names == {*FILES, "manifest.json"}


@pytest.mark.parametrize("count", [1, 2, 7, 64, 1_000])
def test_graphs_run_in_plain_onnxruntime(
    small_bundle: Bundle, small_checkpoint: Path, digits: Dataset, count: int
) -> None:
    """Someone who has only the files gets eager PyTorch's answers, for any batch size."""
    images = digits.train_images[:count]
    model = load_checkpoint(small_checkpoint).model
    encoder, decoder = (
        onnxruntime.InferenceSession(small_bundle.folder / name)
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
    """encode, decode and forward, from the file alone."""
    script = torch.jit.load(str(small_bundle.folder / "autoencoder.ts"))
    images = digits.test_images[:5]

    assert torch.equal(script(images), script.decode(script.encode(images)))


def test_digest_is_of_the_model_alone(
    small_bundle: Bundle, small_checkpoint: Path, tmp_path: Path
) -> None:
    """Exporting again gives the same digest; another calibration gives another."""
    again = export(small_checkpoint, tmp_path / "again", "2.0")
    assert again.manifest.digest == small_bundle.manifest.digest

    shutil.copytree(small_checkpoint, tmp_path / "checkpoint")
    card_file = tmp_path / "checkpoint" / "card.json"
    card = json.loads(card_file.read_text())
    card["calibration"]["mse_quantiles"][50] += 0.001
    card_file.write_text(json.dumps(card))
    other = export(tmp_path / "checkpoint", tmp_path / "other", "1.0")
    assert other.manifest.digest != small_bundle.manifest.digest


def test_disagreement_is_an_error(small_bundle: Bundle) -> None:
    """An engine that differs from the golden answers is refused, with the difference."""
    golden = small_bundle.golden()
    wrong = Golden(golden.images, golden.embeddings + np.float32(0.5), golden.reconstructions)
    engine = open_engine(small_bundle, "onnxruntime", "cpu")

    with pytest.raises(ParityError, match=r"embeddings by 0\.5"):
        compare(engine, wrong, Tolerance(embedding=1e-3, pixel=1e-5))


def test_failed_export_writes_nothing(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where parity fails, no folder appears: a bundle without a manifest can't be met."""
    monkeypatch.setattr("export.parity.PIXEL_TOLERANCE", -1.0)  # nothing can pass

    with pytest.raises(ParityError, match="pixels"):
        export(small_checkpoint, tmp_path / "bundle", "1.0")

    assert list(tmp_path.iterdir()) == []


def test_missing_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says what is missing and exits 1."""
    assert main([str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 1

    error = capsys.readouterr().err
    assert error.startswith("export: ")
    assert "card.json is missing" in error
    assert error.count("\n") == 1
