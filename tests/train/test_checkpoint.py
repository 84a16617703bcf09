"""A checkpoint on disk: written whole or not at all, and read back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from train.__main__ import main
from train.checkpoint import FILES, draft_of, load_checkpoint
from train.errors import CheckpointError

CALIBRATION = {
    "mse_quantiles": [0.1] * 101,
    "relative_quantiles": [0.1] * 101,
    "embedding_min": [0.0, 0.0],
    "embedding_max": [1.0, 1.0],
}


def test_damaged_checkpoint_is_named(small_checkpoint: Path, tmp_path: Path) -> None:
    """A missing, truncated or newer file is an error that says which checkpoint or file."""
    with pytest.raises(CheckpointError, match=r"card\.json is missing"):
        load_checkpoint(tmp_path)

    card = json.loads((small_checkpoint / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "schema": 99}))
    with pytest.raises(CheckpointError, match="schema 99"):
        load_checkpoint(tmp_path)

    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "weights.safetensors").write_bytes(
        (small_checkpoint / "weights.safetensors").read_bytes()[:-1]
    )
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)

    layer = {**card["network"], "encoder.convolutions.1": "GELU(approximate='none')"}
    (tmp_path / "card.json").write_text(json.dumps({**card, "network": layer}))
    with pytest.raises(CheckpointError, match=r"another network: encoder\.convolutions\.1 is GELU"):
        load_checkpoint(tmp_path)

    (tmp_path / "card.json").write_text(json.dumps(card))
    shutil.copy(small_checkpoint / "weights.safetensors", tmp_path)
    for points in (b"", (small_checkpoint / "map.npz").read_bytes()[:99]):
        (tmp_path / "map.npz").write_bytes(points)
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"framing": "foo"}, "framing isn't what train writes"),
        ({"polarity": "foo"}, "polarity isn't what train writes"),
        ({"metrics": {"mse": "x"}}, "metrics isn't what train writes"),
        ({"calibration": {}}, "calibration isn't what train writes"),
        ({"calibration": CALIBRATION | {"more": []}}, "calibration isn't what train writes"),
        ({"calibration": CALIBRATION | {"mse_quantiles": [1.0]}}, "calibration isn't"),
        ({"calibration": CALIBRATION | {"mse_quantiles": [1.0] * 100 + [0.5]}}, "calibration"),
        ({"calibration": CALIBRATION | {"embedding_min": ["a", "b"]}}, "is damaged"),
        ({"dataset": {"name": "d", "sha256": "", "classes": "abc"}}, "classes isn't what train"),
        ({"dataset": {"name": "digits", "classes": []}}, "it lacks 'sha256'"),
    ],
)
def test_damaged_card_is_named(
    small_checkpoint: Path, tmp_path: Path, changed: dict[str, object], complaint: str
) -> None:
    """A card that was edited by hand doesn't become a bundle."""
    shutil.copytree(small_checkpoint, tmp_path / "c")
    card = json.loads((tmp_path / "c/card.json").read_text())
    (tmp_path / "c/card.json").write_text(json.dumps(card | changed))

    with pytest.raises(CheckpointError, match=complaint):
        load_checkpoint(tmp_path / "c")


def test_damaged_map_is_named(small_checkpoint: Path, tmp_path: Path) -> None:
    """A map of another model doesn't become a bundle either."""
    shutil.copytree(small_checkpoint, tmp_path / "c")
    with np.load(small_checkpoint / "map.npz") as points:
        embeddings, labels = points["embeddings"], points["labels"]
    for name, changed in (
        ("embeddings", embeddings[:, :1]),
        ("embeddings", embeddings[:, 0]),
        ("embeddings", embeddings.astype(np.float64)),
        ("embeddings", np.full_like(embeddings, np.nan)),
        ("embeddings", embeddings[:0]),
        ("embeddings", embeddings.astype(str)),
        ("labels", labels[1:]),
        ("labels", labels + 0.5),
    ):
        arrays = {"embeddings": embeddings, "labels": labels} | {name: changed}
        np.savez(tmp_path / "c/map.npz", **arrays)
        with pytest.raises(CheckpointError, match=f"{name} isn't what train writes"):
            load_checkpoint(tmp_path / "c")

    card = json.loads((tmp_path / "c/card.json").read_text())
    card["dataset"]["classes"] = ["a", "b"]  # of ten labels
    (tmp_path / "c/card.json").write_text(json.dumps(card))
    np.savez(tmp_path / "c/map.npz", embeddings=embeddings, labels=labels)
    with pytest.raises(CheckpointError, match="labels isn't what train writes"):
        load_checkpoint(tmp_path / "c")


def test_weights_that_are_missing_are_named(small_checkpoint: Path, tmp_path: Path) -> None:
    """The message has the file's name."""
    shutil.copytree(small_checkpoint, tmp_path / "c")
    (tmp_path / "c/weights.safetensors").unlink()

    with pytest.raises(CheckpointError, match=r"weights\.safetensors is missing"):
        load_checkpoint(tmp_path / "c")


def test_failed_save_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """A failed save leaves the previous checkpoint in place, and no draft beside it."""
    folder = tmp_path / "run"
    with draft_of(folder, {"map.npz"}) as draft:
        (draft / "map.npz").write_text("first")

    def fail_halfway() -> None:
        with draft_of(folder, {"map.npz"}) as draft:
            (draft / "map.npz").write_text("second")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        fail_halfway()

    assert (folder / "map.npz").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_failed_swap_gives_the_name_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save interrupted between its two renames leaves the previous checkpoint in place."""
    folder = tmp_path / "run"
    with draft_of(folder, {"map.npz"}) as draft:
        (draft / "map.npz").write_text("first")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if target == folder and not self.name.endswith(".former"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), draft_of(folder, {"map.npz"}) as draft:
        (draft / "map.npz").write_text("second")

    assert (folder / "map.npz").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("beside", [[], ["card.json"], ["card.json", "map.npz"]])
def test_other_folders_are_never_replaced(tmp_path: Path, beside: list[str]) -> None:
    """An --out that holds other files is refused before training, and the files stay."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in (*beside, "thesis.txt"):
        (folder / name).write_text("years of work")

    with (
        pytest.raises(CheckpointError, match=r"holds other things \(thesis.txt\)"),
        draft_of(folder, {"card.json", "map.npz"}),
    ):
        pass
    assert main(["--dataset", "digits", "--epochs", "99999", "--out", str(tmp_path)]) == 1

    assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_file_of_a_common_name_makes_no_checkpoint(tmp_path: Path) -> None:
    """A folder that holds one of a checkpoint's names, and no checkpoint, isn't replaced."""
    (tmp_path / "card.json").write_text("a business card")

    with pytest.raises(CheckpointError, match=r"\(card.json\)"), draft_of(tmp_path, FILES):
        pass
