"""A bundle is a folder with everything serving needs, and nothing else.

    encoder.onnx       uint8[N, C, H, W] → float32[N, D]
    decoder.onnx       float32[N, D] → float32[N, C, H, W] in [0, 1]
    encoder.fp16.onnx  the same in half precision between input and output, for CUDA
    decoder.fp16.onnx
    autoencoder.ts     TorchScript: encode, decode, forward
    golden.npz         a few images and what eager PyTorch makes of them
    map.npz            embeddings and labels of the test set
    manifest.json      the facts that serving needs, and a sha256 of every file above

This module defines the format, and ``python -m export`` writes it. For programs that read bundles
without this package, manifest.schema.json describes manifest.json.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.bundle.errors import BundleError

SCHEMA = 3
POLARITIES = ("auto", "keep", "invert")
FRAMINGS = ("ink", "pad", "crop", "stretch")
VERSION = re.compile(r"[!-~]{1,64}")  # of a model; what any server and client takes in a header
VERSION_FORM = "1 to 64 printable ASCII characters, no spaces"
FILES = (
    "encoder.onnx",
    "decoder.onnx",
    "encoder.fp16.onnx",
    "decoder.fp16.onnx",
    "autoencoder.ts",
    "golden.npz",
    "map.npz",
)


@dataclass(frozen=True)
class ImageSpec:
    """The pictures a model takes.

    Attributes:
        channels: C, 1 (grey) or 3 (RGB).
        height: H in pixels.
        width: W in pixels.
        polarity: what becomes light ink on dark: ``auto`` inverts files of dark ink on a light
            ground, ``invert`` inverts every file, ``keep`` none.
        framing: how a picture is cut out of a file of another size: ``ink``, ``pad``, ``crop`` or
            ``stretch``; see serve.bundle.framing.
    """

    channels: int
    height: int
    width: int
    polarity: str
    framing: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class Calibration:
    """What the model made of held-out images; serve.bundle.score compares an image with it.

    Attributes:
        mse_quantiles: the 0th to 100th percentile of the reconstruction error, 101 numbers; for
            whoever reads the manifest.
        relative_quantiles: the same of the relative error; see serve.bundle.score.
        embedding_min: the least value of each of the D numbers, a little lower; see train.card.
        embedding_max: the greatest value of each of the D numbers, a little higher.
    """

    mse_quantiles: list[float]
    relative_quantiles: list[float]
    embedding_min: list[float]
    embedding_max: list[float]


@dataclass(frozen=True)
class Tolerance:
    """The greatest difference from eager PyTorch's answer that still counts as the same."""

    embedding: float
    pixel: float


@dataclass(frozen=True)
class Manifest:
    """manifest.json.

    Attributes:
        name: of the model, e.g. ``mnist``.
        version: of the model, e.g. ``1.0``; matches VERSION, since every reply's headers have it.
        digest: sha256 over weights, shapes, preprocessing and calibration: equal digests mean
            equal embeddings, on whatever host they were exported.
        image: the pictures the model takes.
        embedding_width: D.
        classes: the name of each label in map.npz, by its number; empty where the numbers are the
            names.
        calibration: see Calibration.
        tolerances: by precision. A precision that moves the answers too far is missing.
        parity: how far each precision and each exported form was from eager PyTorch in float32,
            as measured at export; see export.parity.Parity.
        files: name → sha256.
    """

    name: str
    version: str
    digest: str
    image: ImageSpec
    embedding_width: int
    classes: list[str]
    calibration: Calibration
    tolerances: dict[str, Tolerance]
    parity: dict[str, dict[str, float]]
    files: dict[str, str]

    def as_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"


@dataclass(frozen=True)
class Golden:
    """Images and eager PyTorch's answers to them, on which every worker checks its engine.

    Attributes:
        images: uint8[N, C, H, W].
        embeddings: float32[N, D].
        reconstructions: float32[N, C, H, W] in [0, 1].
    """

    images: NDArray[np.uint8]
    embeddings: NDArray[np.float32]
    reconstructions: NDArray[np.float32]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have the checksums in its manifest."""

    folder: Path
    manifest: Manifest

    def golden(self) -> Golden:
        """Read golden.npz."""
        with np.load(self.folder / "golden.npz") as arrays:
            return Golden(arrays["images"], arrays["embeddings"], arrays["reconstructions"])


def load_bundle(folder: Path) -> Bundle:
    """Open a bundle, comparing every file with its checksum.

    Raises:
        BundleError: a file is missing, changed or cut short, or the manifest has another schema.
    """
    try:
        manifest = parse_manifest(json.loads((folder / "manifest.json").read_text()))
    except OSError as error:
        raise BundleError(f"{folder} is no bundle: can't read manifest.json") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder}/manifest.json is damaged: {error}") from error
    for name, expected in manifest.files.items():
        try:
            actual = sha256_of(folder / name)
        except OSError as error:
            raise BundleError(f"{folder}/{name} is missing or unreadable") from error
        if actual != expected:
            raise BundleError(f"{folder}/{name} was changed or cut short since it was exported")
    return Bundle(folder, manifest)


def parse_manifest(fields: dict[str, Any]) -> Manifest:
    """Turn the object in manifest.json into a Manifest.

    Raises:
        BundleError: the manifest has another schema.
        KeyError, TypeError, ValueError, AttributeError: a field is missing or of another form.
    """
    if fields["schema"] != SCHEMA:
        raise BundleError(f"manifest.json has schema {fields['schema']}; this reads {SCHEMA}")
    if not VERSION.fullmatch(fields["version"]):
        raise ValueError(f"version is {fields['version']!r}; it must be {VERSION_FORM}")
    return Manifest(
        name=fields["name"],
        version=fields["version"],
        digest=fields["digest"],
        image=ImageSpec(**fields["image"]),
        embedding_width=fields["embedding_width"],
        classes=fields["classes"],
        calibration=Calibration(**fields["calibration"]),
        tolerances={key: Tolerance(**value) for key, value in fields["tolerances"].items()},
        parity=fields["parity"],
        files={name: fields["files"][name] for name in FILES},
    )


def sha256_of(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
