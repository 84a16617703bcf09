"""What several tests of training need: a small trainer's settings, and a trained checkpoint."""

from pathlib import Path

import pytest

from train.__main__ import main
from train.config import TrainConfig
from train.loop import Epoch, Trainer

SMALL = TrainConfig(
    device="cpu",
    dataset="digits",
    hidden_dim=4,
    epochs=4,
    batch_size=128,
    augment=1.0,
    augment_fade=0.5,
    schedule="cosine",
)


def fit(trainer: Trainer, epochs: int | None = None) -> list[Epoch]:
    """Train until ``epochs`` epochs are finished; by default to the end of the run."""
    while len(trainer.history) < (epochs or trainer.config.epochs):
        trainer.run_epoch(lambda count: None)
    return trainer.history


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three quick epochs on real digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    options = ["--dataset", "digits", "--epochs", "3", "--hidden-dim", "8"]
    assert main([*options, "--batch-size", "32", "--out", str(out)]) == 0
    return out / "checkpoint"
