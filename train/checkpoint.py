"""A checkpoint is a folder: weights.safetensors, card.json (what it is) and map.npz (the test set).

``card.json`` keys: ``schema``, ``config``, ``dataset`` (``name``, ``sha256``, ``classes``),
``polarity``, ``framing``, ``split_by``, ``history``, ``metrics``, ``calibration``
(``mse_quantiles``, ``relative_quantiles``, ``embedding_min``, ``embedding_max``), ``network`` and
``made_with``.
``map.npz`` holds ``embeddings`` float32[N, D] and ``labels`` int64[N].
"""

import io
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from serve.bundle.manifest import FRAMINGS, POLARITIES
from train.config import TrainConfig
from train.errors import CheckpointError
from train.model import Autoencoder

SCHEMA = 2
FILES = frozenset({"weights.safetensors", "card.json", "map.npz"})
MAP = "map.npz"  # every checkpoint and every bundle has one
QUANTILES = ("mse_quantiles", "relative_quantiles")  # of a calibration: the 0th to the 100th
# What json, safetensors, torch and numpy are known to raise on damaged files.
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with everything known about it."""

    model: Autoencoder
    card: dict[str, Any]
    embeddings: NDArray[np.float32]  # [N, D], those of the test images
    labels: NDArray[np.int64]  # [N], those of the test images


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``folder`` whole or not at all.

    Raises:
        CheckpointError: ``folder`` holds something that is no checkpoint; it is left alone.
    """
    with draft_of(folder, FILES) as draft:
        weights = {name: part.contiguous() for name, part in checkpoint.model.state_dict().items()}
        (draft / "weights.safetensors").write_bytes(save(weights))
        known = {"schema": SCHEMA, **checkpoint.card, "network": layers_of(checkpoint.model)}
        card = json.dumps(known, indent=2)
        (draft / "card.json").write_text(card + "\n")
        np.savez_compressed(draft / MAP, embeddings=checkpoint.embeddings, labels=checkpoint.labels)


def check_replaceable(folder: Path, files: Set[str]) -> None:
    """Check that a folder may be replaced: it is missing, empty, or of the kind that replaces it.

    Args:
        folder: the folder that is about to be replaced.
        files: names of the files that a folder of this kind may hold; one of them is MAP.

    Raises:
        CheckpointError: ``folder`` is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file: choose another --out")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not (MAP in names <= files):
        strange = min(names - files or names)
        raise CheckpointError(f"{folder} holds other things ({strange}): choose another --out")


@contextmanager
def draft_of(folder: Path, files: Set[str]) -> Iterator[Path]:
    """Yield an empty folder that takes the name ``folder`` once the block has succeeded.

    If the block fails, a ``folder`` from before stays as it was.

    Raises:
        CheckpointError: ``folder`` holds something else than ``files``; it is left alone.
    """
    folder = folder.resolve()
    check_replaceable(folder, files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        draft.chmod(0o755)  # mkdtemp's 0700 would hide it from a service account
        yield draft
        if folder.exists():
            previous = draft.with_name(draft.name + ".former")
            folder.rename(previous)
            try:
                draft.rename(folder)
            finally:  # after Ctrl-C between the two renames, the previous folder gets its name back
                if not folder.exists():
                    previous.rename(folder)
            shutil.rmtree(previous)
        else:
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; its model is in evaluation mode on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged, or the schema or the network is another.
    """
    try:
        card = json.loads((folder / "card.json").read_text())
        check_schema(folder, card)
        model = Autoencoder(TrainConfig(**card["config"]))
        check_network(folder, card["network"], layers_of(model))
        check_card(folder, card)
        model.load_state_dict(load((folder / "weights.safetensors").read_bytes()))
        with np.load(io.BytesIO((folder / "map.npz").read_bytes())) as points:
            embeddings, labels = points["embeddings"], points["labels"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no checkpoint: {error.filename} is missing") from error
    except DAMAGED as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"{folder} is damaged: {what}") from error
    checkpoint = Checkpoint(model.eval(), card, embeddings, labels)
    check_map(folder, checkpoint)
    return checkpoint


def check_schema(folder: Path, card: dict[str, Any]) -> None:
    """Raise CheckpointError unless this version of the code wrote ``card``."""
    if card.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{folder}/card.json has schema {card.get('schema')}; this version reads {SCHEMA}"
        )


def check_card(folder: Path, card: dict[str, Any]) -> None:
    """Check what a bundle needs of a card, which somebody may have edited.

    Raises:
        CheckpointError: a value isn't what train writes.
        KeyError: a key is missing.
    """
    dataset, calibration = card["dataset"], card["calibration"]
    classes, width = dataset["classes"], card["config"]["output_dim"]
    numbers = dict.fromkeys(QUANTILES, 101) | {"embedding_min": width, "embedding_max": width}
    known = {
        "polarity": card["polarity"] in POLARITIES,
        "framing": card["framing"] in FRAMINGS,
        "split_by": isinstance(card["split_by"], str),
        "metrics": all(isinstance(value, float) for value in card["metrics"].values()),
        "dataset": isinstance(dataset["name"], str) and isinstance(dataset["sha256"], str),
        "classes": isinstance(classes, list) and all(isinstance(name, str) for name in classes),
        "calibration": set(calibration) == set(numbers)
        and all(np.shape(calibration[name]) == (count,) for name, count in numbers.items())
        and all(np.isfinite(values).all() for values in calibration.values())
        and all(sorted(values) == values for values in map(calibration.get, QUANTILES)),
    }
    require(known, folder / "card.json")


def check_map(folder: Path, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless the embeddings and labels are what train writes of a card."""
    points, labels = checkpoint.embeddings, checkpoint.labels
    config, classes = checkpoint.card["config"], checkpoint.card["dataset"]["classes"]
    known = {
        "embeddings": points.dtype == np.float32
        and points.shape[1:] == (config["output_dim"],)
        and len(points) > 0
        and np.isfinite(points).all(),
        "labels": labels.dtype == np.int64
        and labels.shape == points.shape[:1]
        and (not classes or ((labels >= 0).all() and (labels < len(classes)).all())),
    }
    require(known, folder / MAP)


def require(known: Mapping[str, bool | np.bool], file: Path) -> None:
    """Raise CheckpointError if a part of a file isn't as it is known."""
    for name in (name for name, is_known in known.items() if not is_known):
        raise CheckpointError(f"{file} is damaged: {name} isn't what train writes")


def layers_of(model: Autoencoder) -> dict[str, str]:
    """Name → description of every layer: two networks may differ though their weights fit both."""
    return {name: str(layer) for name, layer in model.named_modules() if not any(layer.children())}


def check_network(folder: Path, saved: dict[str, str], here: dict[str, str]) -> None:
    """Raise CheckpointError unless the saved layers are those of train/model.py.

    Args:
        folder: the checkpoint.
        saved: from its card.
        here: of the model that train/model.py makes of the checkpoint's config.
    """
    for name in sorted(saved.keys() | here.keys()):
        if saved.get(name) != here.get(name):
            raise CheckpointError(
                f"{folder} is of another network: {name} is {saved.get(name)} there, "
                f"{here.get(name)} in train/model.py; train again"
            )
