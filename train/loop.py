"""The training loop: Adam on the mean squared error, 80 % of the images to learn, 20 % to watch.

On a CPU two habits decide the speed: bf16 autocast with channels_last convolutions, and keeping
freed memory (``train.device``). On CUDA the data lies on the device and the step is one graph
(``train.step``). bench/train.py measures both against a plain loop.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from train.config import TrainConfig
from train.data import Dataset, split
from train.device import choose_device
from train.errors import ConfigError, Diverged
from train.layout import WIDEST, lay_out
from train.model import Autoencoder, to_unit_range
from train.step import CapturedStep, Step

WARPED = 0.8  # of the images, until fewer are: the others are learned as they are
EVALUATION_BATCH = 500  # images; fits a laptop's cache and any GPU


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images ended with: mean squared errors per pixel."""

    epoch: int
    train_mse: float
    val_mse: float | None  # None where every image was learned


class Trainer:
    """A model in training, one epoch at a time.

    ``state`` and ``restore`` carry it over a restart: the epochs after it have the numbers that
    an uninterrupted run would have had (bit for bit on a CPU; CUDA's own sums vary a little).

    Attributes:
        model: the network, channels last.
        history: every finished epoch.
        seconds: spent in finished epochs, restarts included.

    Args:
        config: the hyperparameters.
        dataset: images to learn; its test half isn't touched.

    Raises:
        ConfigError: the device isn't there, or the images don't fit the configuration.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset) -> None:
        check_shape(config, dataset)
        device = choose_device(config.device)
        torch.manual_seed(config.seed)
        self.config = config
        self.model = Autoencoder(config).to(memory_format=torch.channels_last).to(device)
        start_from_mean(self.model, dataset.train_images)
        self.history: list[Epoch] = []
        self.seconds = 0.0
        self._checksum = dataset.checksum
        self._images = dataset.train_images.to(device)
        self._places: Tensor | None = None  # on the map, once it is drawn
        self._learn, self._watch = split_for(config, len(self._images))
        self._order = torch.Generator().manual_seed(config.seed)  # of the images
        self._noise = torch.Generator(device).manual_seed(config.seed)  # of what happens to them
        self._step = Step(self.model, config, self._noise)
        self._learn_batch: Callable[[Tensor, Tensor], None] = self._step
        if device.type == "cuda":
            self._learn_batch = CapturedStep(self._step, config.batch_size, self._noise)

    @property
    def _draws_map(self) -> bool:
        return self.config.layout > 0 and self.config.output_dim <= WIDEST

    @property
    def images_per_epoch(self) -> int:
        """How many images are learned in one epoch."""
        return len(self._learn)

    def lay_out(self, on_progress: Callable[[float], None]) -> Tensor:
        """The images' places on the map that training starts from, drawn on the first call.

        Args:
            on_progress: called with the share done, 0 to 1, every now and then.

        Returns:
            float32[N, D] on the training device; NaN for an image that has none, such as every
            image that is watched and not learned.
        """
        if self._places is None:
            started, width = time.monotonic(), self.config.output_dim
            places = torch.full((1, 1), torch.nan).expand(len(self._images), width)  # nowhere
            if self._draws_map:
                places = places.clone()
                learned = self._images[self._learn.to(self._images.device)].cpu()
                places[self._learn] = lay_out(learned, width, self.config.seed, on_progress)
            self._places = places.to(self._images.device)
            self.seconds += time.monotonic() - started
        return self._places

    def run_epoch(self, on_batch: Callable[[int], None]) -> Epoch:
        """Learn every image once.

        Args:
            on_batch: called with the number of images of every finished step.

        Raises:
            Diverged: the loss became NaN or infinite; the history ends before this epoch.
        """
        places = self.lay_out(lambda _: None)
        started, number = time.monotonic(), len(self.history) + 1
        shuffled = self._learn[torch.randperm(len(self._learn), generator=self._order)]
        batches = shuffled.to(self._images.device).split(self.config.batch_size)
        self._step.squared.zero_()
        steps = self.config.epochs * len(batches)
        for step, batch in enumerate(batches, (number - 1) * len(batches)):
            self._step.set_rate(learning_rate(self.config, step, steps))
            self._step.warped.fill_(warped(self.config, step, steps))
            self._step.pull.fill_(pull(self.config, step, steps))
            self._learn_batch(self._images[batch], places[batch])
            on_batch(len(batch))
        epoch = Epoch(number, self._step.squared.item() / len(self._learn), self._watched_mse())
        if not self._is_finite(epoch):
            raise Diverged(f"the loss was lost in epoch {number}; lower learning_rate")
        self.history.append(epoch)
        self.seconds += time.monotonic() - started
        return epoch

    def _is_finite(self, epoch: Epoch) -> bool:
        """Whether the losses are numbers, and the weights after the last update still are."""
        weights = all(bool(part.isfinite().all()) for part in self.model.parameters())
        return weights and math.isfinite(epoch.train_mse) and math.isfinite(epoch.val_mse or 0)

    def _watched_mse(self) -> float | None:
        if len(self._watch) == 0:
            return None
        return mean_squared_error(self.model, self._images[self._watch.to(self._images.device)])

    def state(self) -> dict[str, Any]:
        """Everything a restart needs, copied: what happens next doesn't change it."""
        return {
            "config": asdict(self.config),
            "dataset": self._checksum,
            "device": self._images.device.type,
            "seconds": self.seconds,
            "model": {name: part.clone() for name, part in self.model.state_dict().items()},
            "optimiser": copied(self._step.optimiser.state_dict()),
            "order": self._order.get_state(),
            "noise": self._noise.get_state(),
            "places": copied(self._places) if self._draws_map else None,
            "history": [asdict(epoch) for epoch in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where ``state`` was taken.

        Raises:
            ConfigError: it is of another configuration (bar more epochs), dataset or device.
        """
        here = {"dataset": self._checksum, "device": self._images.device.type}
        now = asdict(self.config) | here
        then = state["config"] | {name: state[name] for name in here}
        for name, value in now.items():
            if name != "epochs" and then.get(name) != value:
                raise ConfigError(f"the run to resume had {name} {then.get(name)}, not {value}")
        if len(state["history"]) > self.config.epochs:
            raise ConfigError(
                f"the run to resume has had {len(state['history'])} epochs; "
                f"epochs {self.config.epochs} is less"
            )
        self.model.load_state_dict(state["model"])
        self._step.restore(state["optimiser"])
        self.seconds = state["seconds"]
        self._order.set_state(state["order"])
        self._noise.set_state(state["noise"])
        if state["places"] is not None:
            self._places = state["places"].to(self._images.device)
        self.history = [Epoch(**fields) for fields in state["history"]]


def copied(value: Any) -> Any:
    """A nest of dicts and lists with every tensor cloned."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, list):
        return [copied(part) for part in value]
    return value


def split_for(config: TrainConfig, count: int) -> tuple[Tensor, Tensor]:
    """Indices to learn and to watch; all and none where ``fit_on`` is ``all``."""
    learn, watch = split(count, config.seed)
    return (torch.cat([learn, watch]), watch[:0]) if config.fit_on == "all" else (learn, watch)


def pull(config: TrainConfig, step: int, steps: int) -> float:
    """How strongly step ``step`` of ``steps`` draws embeddings to their places: ever less."""
    return config.layout * (1 - step / steps)


def warped(config: TrainConfig, step: int, steps: int) -> float:
    """The share of the images that step ``step`` of ``steps`` warps."""
    left = 1 - step / steps
    return WARPED * min(1.0, left / config.augment_fade) if config.augment_fade else WARPED


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The rate of a step: warming up, then constant or falling along half a cosine to 0."""
    warmup = min(config.warmup_steps, steps // 20)  # a short run is not all warm-up
    share = min(1.0, (step + 1) / (warmup + 1))
    if config.schedule == "cosine":
        share *= (1 + math.cos(math.pi * step / steps)) / 2
    return config.learning_rate * share


@torch.no_grad()
def start_from_mean(model: Autoencoder, images: Tensor) -> None:
    """Set the decoder's last bias so that the untrained model answers with the mean pixel.

    From torch's default of about 0.5 the first steps race towards MNIST's black background. With
    one seed of three that blew the embedding up until every sigmoid was saturated and no gradient
    came back (mse stuck at 0.11); with the others it cost time (docs/experiments.md).
    """
    total = sum(part.sum(dtype=torch.int64).item() for part in images.split(EVALUATION_BATCH))
    mean = torch.tensor(total / images.numel() / 255).clamp(0.01, 0.99)
    model.decoder.convolutions[-1].bias.fill_(mean.logit().item())


@torch.inference_mode()
def mean_squared_error(model: Autoencoder, images: Tensor) -> float:
    """Mean squared error per pixel, pixels in [0, 1], in float32, of any number of images."""
    batches = images.split(EVALUATION_BATCH)
    errors = (functional.mse_loss(model(b), to_unit_range(b)).item() * len(b) for b in batches)
    return sum(errors) / len(images)


def check_shape(config: TrainConfig, dataset: Dataset) -> None:
    """Raise ConfigError unless the images are what the model is about to be built for."""
    expected = (config.input_dim, config.image_size, config.image_size)
    actual = tuple(dataset.train_images.shape[1:])
    if actual != expected:
        raise ConfigError(
            f"{dataset.name} has images of {actual} (channels, height, width), but input_dim and "
            f"image_size ask for {expected}"
        )
