"""The published recipe with PyTorch Lightning. Part of bench.train, which runs it.

As Lightning's guide to speed has it: persistent reading processes, bf16 where the processor has
it, and ``barebones``, which turns off all that isn't training.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from pytorch_lightning import LightningModule, Trainer
from torch.nn import functional
from torch.utils.data import DataLoader

from train.config import TrainConfig
from train.device import choose_precision
from train.mnist import import_torchvision_datasets
from train.model import Autoencoder


class Recipe(LightningModule):
    """The autoencoder, its loss and its optimiser."""

    def __init__(self, count: Callable[[int], None]) -> None:
        super().__init__()
        self.model, self.count = Autoencoder(TrainConfig()), count

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """The loss of a batch."""
        images, _ = batch
        return functional.mse_loss(self.model(images * 255), images)  # the model divides by 255

    def on_train_batch_end(self, outputs: object, batch: list[torch.Tensor], index: int) -> None:
        """Count the images of a finished step."""
        self.count(len(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as the recipe has it."""
        return torch.optim.Adam(self.parameters(), lr=5e-4)


def lightning_loop(data_dir: Path, count: Callable[[int], None]) -> None:
    """Train without end."""
    datasets = import_torchvision_datasets()
    from torchvision.transforms import ToTensor

    mnist = datasets.MNIST(str(data_dir), transform=ToTensor(), download=True)
    loader = DataLoader(mnist, batch_size=64, shuffle=True, num_workers=2, persistent_workers=True)
    precision = "bf16-mixed" if choose_precision(TrainConfig()) == "bf16" else "32-true"
    Trainer(max_epochs=-1, barebones=True, devices=1, precision=precision).fit(
        Recipe(count), loader
    )
