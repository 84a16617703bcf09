"""Fixtures of several folders' tests: a small model, its bundle, the shipped bundle, MNIST.

Only they import torch, train and export: most tests of clients/ run without. A test that needs a
bundle is skipped where torch isn't installed.
"""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serve.bundle.manifest import Bundle

if TYPE_CHECKING:
    from train.dataset import Dataset

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "weights" / "mnist"


def pytest_configure() -> None:
    """Let the programs that tests start hear Ctrl-C, wherever the tests run.

    The shell's ``&`` starts a program with SIGINT ignored, and nohup with SIGHUP. What is ignored
    stays ignored in its children; what has a handler doesn't (POSIX, execve).
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session")
def digits() -> "Dataset":
    """scikit-learn's handwritten digits."""
    pytest.importorskip("torch")
    from train.data import load_dataset

    return load_dataset("digits", Path())


@pytest.fixture(scope="session")
def mnist() -> "Dataset":
    """The real MNIST; a test that needs it is skipped where there is no copy."""
    from train.data import load_dataset

    folder = Path(os.environ.get("PINHOLE_DATA", "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip("no MNIST in $PINHOLE_DATA or data/, and tests don't download")
    return load_dataset("mnist", folder)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory, digits: "Dataset") -> Path:
    """A checkpoint of a model of 4 channels, trained for a second."""
    return train_small(tmp_path_factory.mktemp("checkpoint") / "small", digits)


def train_small(folder: Path, digits: "Dataset", output_dim: int = 2) -> Path:
    """Train a model of 4 channels for a second, and save its checkpoint."""
    import torch

    from train.card import describe
    from train.checkpoint import Checkpoint, save_checkpoint
    from train.config import TrainConfig
    from train.evaluate import score
    from train.loop import Trainer

    config = TrainConfig(
        hidden_dim=4, output_dim=output_dim, dataset="digits", epochs=2, learning_rate=3e-3
    )
    trainer = Trainer(config, digits)
    for _ in range(config.epochs):
        trainer.run_epoch(lambda count: None)
    model = trainer.model.to(memory_format=torch.contiguous_format).eval()
    found = score(model, digits)
    card = describe(trainer, digits, found, commit=None)
    save_checkpoint(folder, Checkpoint(model, card, found.embeddings, found.labels))
    return folder


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory, small_checkpoint: Path) -> Bundle:
    """The small model, exported."""
    from export.__main__ import export

    return export(small_checkpoint, tmp_path_factory.mktemp("bundle") / "small", "1.0")


@pytest.fixture(scope="session")
def shipped_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped weights, exported."""
    pytest.importorskip("torch")
    from export.__main__ import export

    return export(SHIPPED, tmp_path_factory.mktemp("bundle") / "mnist", "1.0")
