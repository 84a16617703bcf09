"""A user's own model: a folder of coloured images, trained, exported and run, end to end."""

import json
from pathlib import Path

import numpy as np
import pytest

from export.__main__ import main as export_main
from serve.bundle.engine.opening import open_engine
from serve.bundle.images import PixelBudget, read_image
from serve.bundle.manifest import ImageSpec, load_bundle
from serve.launcher.metadata import pages
from train.__main__ import main as train_main
from train.checkpoint import load_checkpoint
from train.data import load_dataset

from .train.test_folder import make_folder


@pytest.mark.parametrize("model", ["ae", "vae"])
def test_rgb_folder_to_embedding(tmp_path: Path, model: str) -> None:
    """A folder of RGB images of 64×64 becomes embeddings of 3 numbers, by either model."""
    images = make_folder(tmp_path / "images", coloured=True)
    options = ["--hidden-dim", "4", "--output-dim", "3", "--image-size", "64"]
    options += ["--epochs", "20", "--passes", "1"]
    source = ["--dataset", "folder", "--data-dir", str(images), "--model", model]
    run, out = tmp_path / "run", tmp_path / "bundle"

    assert train_main([*source, *options, "--out", str(run)]) == 0
    assert export_main([str(run / "checkpoint"), "--out", str(out)]) == 0

    bundle = load_bundle(out)
    assert bundle.manifest.image.shape == (3, 64, 64)
    assert bundle.manifest.image.polarity == "keep"
    assert bundle.manifest.classes == ["blocks", "stripes"]
    described = json.loads(pages(bundle, "fp32")["/v2/models/embed"])
    assert described["classes"] == ["blocks", "stripes"]
    engine = open_engine(bundle, "onnxruntime", "cpu")
    checkpoint = load_checkpoint(run / "checkpoint")
    dataset = load_dataset("folder", images, size=64)
    embeddings = engine.embed(dataset.test_images.numpy())
    allowed = bundle.manifest.tolerances["fp32"].embedding
    assert embeddings == pytest.approx(checkpoint.embeddings, abs=allowed)
    assert engine.decode(embeddings).shape == (4, 3, 64, 64)


@pytest.mark.parametrize("channels", [1, 3])
def test_training_and_serving_see_the_same_pixels(tmp_path: Path, channels: int) -> None:
    """A file becomes the very same pixels in train.folder and in serve.bundle.images."""
    images = make_folder(tmp_path, coloured=True)
    dataset = load_dataset("folder", images, channels=channels, size=24)
    spec = ImageSpec(channels, 24, 24, polarity="keep", framing="pad")
    served = np.stack(
        [read_image(path.read_bytes(), spec, PixelBudget()) for path in sorted(images.rglob("*.*"))]
    )
    test = np.arange(len(served)) % 5 == 4

    assert np.array_equal(served[test], dataset.test_images.numpy())
