"""From images to a checkpoint, and back from disk."""

import json
from pathlib import Path

import pytest
import torch

from train.__main__ import main
from train.checkpoint import draft_of, load_checkpoint
from train.config import TrainConfig
from train.data import Dataset
from train.errors import CheckpointError, ConfigError, Diverged
from train.evaluate import evaluate
from train.loop import fit


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three quick epochs on real digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    options = ["--dataset", "digits", "--epochs", "3", "--hidden-dim", "8"]
    assert main([*options, "--learning-rate", "2e-3", "--out", str(out)]) == 0
    return out


def test_training_learns(trained: Path) -> None:
    """The loss falls, and the card says how far."""
    card = json.loads((trained / "card.json").read_text())

    losses = [epoch["val_mse"] for epoch in card["history"]]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    assert card["metrics"]["mse"] < 0.06  # answering with the mean pixel gives 0.096


def test_card_tells_the_truth(trained: Path, digits: Dataset) -> None:
    """Evaluating the weights again gives the card's metrics and map."""
    checkpoint = load_checkpoint(trained)

    again = evaluate(checkpoint.model, digits)

    assert again.metrics == pytest.approx(checkpoint.card["metrics"], rel=1e-4)
    assert again.embeddings == pytest.approx(checkpoint.embeddings, abs=1e-4)
    assert checkpoint.card["dataset"]["sha256"] == digits.checksum
    assert len(checkpoint.card["calibration"]["mse_quantiles"]) == 101


def test_damaged_checkpoint_is_named(trained: Path, tmp_path: Path) -> None:
    """Missing, cut short or of another schema: the message says which file."""
    with pytest.raises(CheckpointError, match=r"card\.json is missing"):
        load_checkpoint(tmp_path)

    card = json.loads((trained / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "schema": 99}))
    with pytest.raises(CheckpointError, match="schema 99"):
        load_checkpoint(tmp_path)

    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "weights.safetensors").write_bytes(
        (trained / "weights.safetensors").read_bytes()[:-1]
    )
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)


def test_failed_save_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """What stood there before a failure stands there afterwards, and nothing beside it."""
    folder = tmp_path / "run"
    with draft_of(folder) as draft:
        (draft / "card.json").write_text("first")

    def fail_halfway() -> None:
        with draft_of(folder) as draft:
            (draft / "card.json").write_text("second")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        fail_halfway()

    assert (folder / "card.json").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_diverging_run_stops(digits: Dataset) -> None:
    """A loss that is no number ends the run and says what to change."""
    config = TrainConfig(dataset="digits", hidden_dim=4, learning_rate=1e30, epochs=2)

    with pytest.raises(Diverged, match="learning_rate"):
        fit(config, digits, lambda count: None, lambda epoch: None)


def test_images_must_fit_the_model(digits: Dataset) -> None:
    """A model of another size is refused before the first step."""
    config = TrainConfig(dataset="digits", image_size=32)

    with pytest.raises(ConfigError, match=r"\(1, 28, 28\).*image_size"):
        fit(config, digits, lambda count: None, lambda epoch: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_never_replaced_silently(digits: Dataset) -> None:
    """--device cuda without CUDA is an error."""
    with pytest.raises(ConfigError, match="no CUDA device"):
        fit(TrainConfig(device="cuda"), digits, lambda count: None, lambda epoch: None)
