"""The training loop. It lowers the mean squared error, and measures it on images set aside.

On a CPU two habits decide the speed: bf16 autocast with channels_last convolutions, and keeping
freed memory (``train.device``). On CUDA the data lies on the device and each step is a single CUDA
graph (``train.step``). bench/train.py compares the speed with that of a plain loop.
"""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from train.config import WIDEST_MAP, TrainConfig
from train.dataset import Dataset, split, split_groups
from train.device import choose_device
from train.errors import ConfigError, Diverged
from train.layout import lay_out
from train.model import Autoencoder, to_unit_range
from train.pca import fit_pca
from train.schedule import learning_rate, pull, warped_share
from train.start import start_from_pca
from train.step import CapturedStep, Step

EVALUATION_PIXELS = 500 * 28 * 28  # of a batch, in one channel; fits a laptop's memory and any GPU


@dataclass(frozen=True)
class Epoch:
    """The mean squared errors per pixel of a pass (or passes) over the training images."""

    epoch: int
    train_mse: float
    val_mse: float | None  # None if fit_on is "all", which leaves no validation images


class Trainer:
    """A model in training, one epoch at a time.

    ``state`` and ``restore`` carry a trainer over a restart: the later epochs have the numbers that
    an uninterrupted run would have had (bit for bit on a CPU; CUDA's sums vary a little).

    Attributes:
        model: the network, in the channels_last memory format.
        history: every finished epoch.
        seconds: time spent in finished epochs and on the map, restarts included.
        lengths: how many epochs the run was to have, and since which epoch: (0, epochs) at first,
            and another pair for each restart with another number.

    Args:
        config: the hyperparameters.
        dataset: its training half is split into training and validation images; its test half
            isn't touched.

    Raises:
        ConfigError: the device isn't there, or the images don't fit the configuration.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset) -> None:
        check_shape(config, dataset)
        device = choose_device(config.device)
        torch.manual_seed(config.seed)
        self.config = config
        self.model = Autoencoder(config).to(device)
        # torch's type hints leave memory_format out of Module.to.
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        start_from_mean(self.model, dataset.train_images)
        self.history: list[Epoch] = []
        self.seconds = 0.0
        self.lengths = [(0, config.epochs)]
        self._checksum = dataset.checksum
        self._images = dataset.train_images.to(device)
        self._places: Tensor | None = None  # the images' places on the map, once it is drawn
        self._train, self._validate = split_for(config, dataset)  # indices of images
        if config.start == "pca":
            learned = self._on_cpu(self._train)
            start_from_pca(self.model, fit_pca(learned, config.output_dim), learned)
        self._best: dict[str, Tensor] | None = None  # weights; kept if there is a patience
        # Two sources of random numbers: the order of the images, and everything done to them.
        self._order = torch.Generator().manual_seed(config.seed)
        self._noise = torch.Generator(device).manual_seed(config.seed)
        self._step = Step(self.model, config, self._noise)
        self._learn_batch: Callable[[Tensor, Tensor], None] = self._step
        if device.type == "cuda":
            self._learn_batch = CapturedStep(self._step, config.batch_size, self._noise)

    @property
    def draws_map(self) -> bool:
        """Whether training starts from a map."""
        return self.config.layout > 0 and self.config.output_dim <= WIDEST_MAP

    @property
    def lacks_map(self) -> bool:
        """Whether the map that training starts from is still to be drawn."""
        return self.draws_map and self._places is None

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch learns."""
        return len(self._train) * self.config.passes

    @property
    def steps(self) -> int:
        """How many optimiser steps the finished epochs took."""
        return len(self.history) * math.ceil(self.images_per_epoch / self.config.batch_size)

    @property
    def best_epoch(self) -> int:
        """The number of the epoch with the least validation error; of the last if none has any."""
        best = min(self.history, key=lambda epoch: epoch.val_mse or math.inf, default=None)
        return best.epoch if best and best.val_mse is not None else len(self.history)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the last ``patience`` epochs brought nothing."""
        patience = self.config.patience or math.inf
        done = len(self.history)
        return done >= self.config.epochs or done - self.best_epoch >= patience

    @property
    def ended_early(self) -> bool:
        """Whether it was the patience that ended the training."""
        return self.finished and len(self.history) < self.config.epochs

    def _on_cpu(self, indices: Tensor) -> Tensor:
        return self._images[indices.to(self._images.device)].cpu()

    def take_best(self) -> None:
        """Give the model the weights after ``best_epoch``, if there is a patience."""
        if self._best is not None:
            self.model.load_state_dict(self._best)

    def lay_out(self, on_progress: Callable[[float], None]) -> Tensor:
        """The images' places on the map that training starts from, drawn on the first call.

        Args:
            on_progress: called every now and then with the share that is done, 0 to 1.

        Returns:
            float32[N, D] on the training device; NaN for an image without a place. No validation
            image has a place.
        """
        if self._places is None:
            started, width = time.monotonic(), self.config.output_dim
            places = torch.full((1, 1), torch.nan).expand(len(self._images), width)
            if self.draws_map:
                places = places.clone()
                images = self._on_cpu(self._train)
                places[self._train] = lay_out(images, width, self.config.seed, on_progress)
            self._places = places.to(self._images.device)
            self.seconds += time.monotonic() - started
        return self._places

    def run_epoch(self, on_batch: Callable[[int], None]) -> Epoch:
        """Learn every training image ``passes`` times.

        Args:
            on_batch: called after every step with its number of images.

        Raises:
            Diverged: the loss or a weight became NaN or infinite; the history ends before this
                epoch.
        """
        places = self.lay_out(lambda _: None)
        started, number = time.monotonic(), len(self.history) + 1
        shuffled = torch.cat([self._shuffled() for _ in range(self.config.passes)])
        batches = torch.split(shuffled.to(self._images.device), self.config.batch_size)
        self._step.mse_sum.zero_()
        steps = self.config.epochs * len(batches)
        for step, batch in enumerate(batches, (number - 1) * len(batches)):
            self._step.set_rate(learning_rate(self.config, step, steps))
            self._step.warped_share.fill_(warped_share(self.config, step, steps))
            self._step.pull.fill_(pull(self.config, step, steps))
            self._learn_batch(self._images[batch], places[batch])
            on_batch(len(batch))
        epoch = Epoch(number, self._step.mse_sum.item() / len(shuffled), self._val_mse())
        if not self._is_finite(epoch):
            raise Diverged(
                f"the loss became NaN or infinite in epoch {number}; lower learning_rate"
            )
        self.history.append(epoch)
        if self.config.patience and self.best_epoch == number:
            self._best = deepcopy(self.model.state_dict())
        self.seconds += time.monotonic() - started
        return epoch

    def _shuffled(self) -> Tensor:
        """The indices of the training images in a random order."""
        return self._train[torch.randperm(len(self._train), generator=self._order)]

    def _is_finite(self, epoch: Epoch) -> bool:
        """Whether the losses and, after the last update, all weights are finite."""
        weights = all(bool(part.isfinite().all()) for part in self.model.parameters())
        return weights and math.isfinite(epoch.train_mse) and math.isfinite(epoch.val_mse or 0)

    def _val_mse(self) -> float | None:
        if len(self._validate) == 0:
            return None
        return mean_squared_error(self.model, self._images[self._validate.to(self._images.device)])

    def state(self) -> dict[str, Any]:
        """A copy of everything that a restart needs; later epochs don't change the copy."""
        return {
            "config": asdict(self.config),
            "dataset": self._checksum,
            "validate": self._validate,
            "lengths": self.lengths,
            "device": self._images.device.type,
            "seconds": self.seconds,
            "model": deepcopy(self.model.state_dict()),
            "optimisers": [deepcopy(part.state_dict()) for part in self._step.optimisers],
            "order": self._order.get_state(),
            "noise": self._noise.get_state(),
            "places": deepcopy(self._places) if self.draws_map else None,
            "best": self._best,  # is replaced, never changed
            "history": [asdict(epoch) for epoch in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where ``state`` was taken.

        Raises:
            ConfigError: ``state`` comes from another configuration, dataset or device. A greater
                number of epochs is allowed, and another patience if the run had one.
        """
        now = asdict(self.config) | {"device": self._images.device.type}
        # A hyperparameter that the run didn't know yet was at its default.
        then = asdict(TrainConfig()) | state["config"] | {"device": state["device"]}
        changeable = {"epochs"} | ({"patience"} if now["patience"] and then["patience"] else set())
        for name, value in now.items():
            if name not in changeable and then[name] != value:
                raise ConfigError(f"the run to resume had {name} {then[name]}, not {value}")
        same_split = torch.equal(state["validate"], self._validate)
        if state["dataset"] != self._checksum or not same_split:
            raise ConfigError("the images of the dataset have changed since the run began")
        if len(state["history"]) > self.config.epochs:
            raise ConfigError(
                f"the run to resume has finished {len(state['history'])} epochs; "
                f"epochs must be at least as many, got {self.config.epochs}"
            )
        try:
            self.model.load_state_dict(state["model"])
            self._step.restore(state["optimisers"])
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"the run to resume is of another network: {error}") from error
        self.seconds = state["seconds"]
        self.lengths = list(state["lengths"])
        if self.lengths[-1][1] != self.config.epochs:
            self.lengths.append((len(state["history"]), self.config.epochs))
        self._order.set_state(state["order"])
        self._noise.set_state(state["noise"])
        if state["places"] is not None:
            self._places = state["places"].to(self._images.device)
        self._best = state["best"]
        self.history = [Epoch(**fields) for fields in state["history"]]


def split_for(config: TrainConfig, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation images; with ``fit_on`` ``all`` all train."""
    if dataset.train_groups is None:
        train, validate = split(len(dataset.train_images), config.seed)
    else:
        train, validate = split_groups(dataset.train_groups, config.seed)
    if config.fit_on == "all":
        return torch.cat([train, validate]), validate[:0]
    return train, validate


@torch.no_grad()
def start_from_mean(model: Autoencoder, images: Tensor) -> None:
    """Set the decoder's last bias so that the untrained model answers with the mean pixel.

    With torch's default bias the untrained model answers with about 0.5, and the first steps race
    towards MNIST's black background. With one seed of three the race blew the embedding up until
    every sigmoid was saturated and no gradient came back (mse stuck at 0.11). With the two other
    seeds it only cost time (docs/experiments.md).
    """
    total = sum(part.sum(dtype=torch.int64).item() for part in evaluation_batches(images))
    mean = torch.tensor(total / images.numel() / 255).clamp(0.01, 0.99)
    *_, last_bias = model.decoder.convolutions.parameters()
    last_bias.fill_(mean.logit().item())


@torch.inference_mode()
def mean_squared_error(model: Autoencoder, images: Tensor) -> float:
    """Mean squared error per pixel, pixels in [0, 1], of any number of images, in float32."""
    errors = (
        functional.mse_loss(model(batch), to_unit_range(batch)).item() * len(batch)
        for batch in evaluation_batches(images)
    )
    return sum(errors) / len(images)


def evaluation_batches(images: Tensor) -> tuple[Tensor, ...]:
    """Cut uint8[N, C, H, W] into batches of at most EVALUATION_PIXELS, or of one image."""
    return torch.split(images, evaluation_size(images.shape[-1]))


def evaluation_size(side: int) -> int:
    """How many images of ``side`` × ``side`` pixels a batch has that isn't learned from."""
    return max(1, EVALUATION_PIXELS // side**2)


def check_shape(config: TrainConfig, dataset: Dataset) -> None:
    """Raise ConfigError unless the images have the shape that the model is built for."""
    expected = (config.input_dim, config.image_size, config.image_size)
    actual = tuple(dataset.train_images.shape[1:])
    if actual != expected:
        raise ConfigError(
            f"{dataset.name} has images of {actual} (channels, height, width), but input_dim and "
            f"image_size ask for {expected}"
        )
