"""Your own model: a folder of images, trained, exported, mounted, served, and later swapped."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from ..train.test_folder import make_folder
from .conftest import ROOMY, ROOT, Compose, load, post


def make_bundle(images: Path, bundle: Path, epochs: int) -> str:
    """Train and export as README says, only smaller; returns the model's digest."""
    run = bundle.with_name(f"{bundle.name}-run")
    source = ["--dataset", "folder", "--data-dir", str(images), "--image-size", "32"]
    small = ["--epochs", str(epochs), "--hidden-dim", "4", "--layout", "0"]
    for command in (
        ["train", *source, *small, "--out", str(run)],
        ["export", str(run / "checkpoint"), "--out", str(bundle)],
    ):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, timeout=120)
    digest: str = json.loads((bundle / "manifest.json").read_text())["digest"]
    return digest


@dataclass(frozen=True)
class OwnModels:
    """A folder with two bundles, their digests, and a picture of their kind."""

    folder: Path
    first: str
    second: str
    picture: bytes


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> OwnModels:
    """The bundles ``mine`` and ``mine-2``."""
    images = make_folder(tmp_path_factory.mktemp("own") / "images", coloured=True)
    bundles = tmp_path_factory.mktemp("own") / "bundles"
    bundles.mkdir(mode=0o755)
    first = make_bundle(images, bundles / "mine", epochs=2)
    second = make_bundle(images, bundles / "mine-2", epochs=3)
    picture = next(path for path in sorted(images.rglob("*")) if path.is_file()).read_bytes()
    return OwnModels(bundles, first, second, picture)


def test_own_model_is_served_and_swapped(compose: Compose, own: OwnModels) -> None:
    """Every page tells of the new model after a swap, and no request fails during the swap."""
    scale = ["--scale", "service=2"]
    compose.up(*scale, PINHOLE_BUNDLES=str(own.folder), PINHOLE_BUNDLE="mine", **ROOMY)

    before = post(f"{compose.url}/predictions/reconstruct", own.picture)
    swap = ["python", "-m", "serve.launcher.swap", "/bundles/mine-2"]
    with load(compose, own.picture, threads=4) as outcomes:
        for index in ("1", "2"):
            compose.run("exec", "--index", index, "service", *swap)
    after = post(f"{compose.url}/predictions/reconstruct", own.picture)
    map_digest = requests.get(f"{compose.url}/map.json", timeout=10).json()["digest"]

    assert own.first != own.second
    assert (before.status_code, before.headers["X-Model-Digest"]) == (200, own.first)
    assert (after.status_code, after.headers["X-Model-Digest"]) == (200, own.second)
    assert map_digest == own.second
    assert set(outcomes) == {"200"}
    assert outcomes["200"] > 20
