"""The training loop: Adam on the mean squared error, 80 % of the images to learn, 20 % to watch.

On a CPU two habits decide the speed (images/s at batch 64, two AVX512-BF16 cores): bf16 autocast
with channels_last convolutions, and keeping freed memory (see ``keep_freed_memory``): together
1,450 against 500 for plain float32.
"""

import ctypes
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from train.augment import augment
from train.config import TrainConfig
from train.data import Dataset, split
from train.errors import ConfigError, Diverged
from train.model import Autoencoder, to_unit_range

EVALUATION_BATCH = 500  # images; fits a laptop's cache and any GPU


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training split ended with: mean squared errors per pixel."""

    epoch: int
    train_mse: float
    val_mse: float | None  # None where every image was learned


def fit(
    config: TrainConfig,
    dataset: Dataset,
    on_batch: Callable[[int], None],
    on_epoch: Callable[[Epoch], None],
) -> Autoencoder:
    """Train a fresh model.

    Args:
        config: the hyperparameters.
        dataset: images to learn; its test half isn't touched.
        on_batch: called with the number of images of every finished step.
        on_epoch: called with the losses of every finished epoch.

    Raises:
        ConfigError: the device isn't there, or the images don't fit the configuration.
        Diverged: the loss became NaN or infinite.
    """
    check_shape(config, dataset)
    device, precision = choose_device(config.device), choose_precision(config)
    torch.manual_seed(config.seed)
    model = Autoencoder(config).to(memory_format=torch.channels_last).to(device)
    start_from_mean(model, dataset.train_images)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    images = dataset.train_images.to(device)
    learn, watch = (part.to(device) for part in split_for(config, len(images)))
    warps = torch.Generator().manual_seed(config.seed)
    steps_per_epoch = math.ceil(len(learn) / config.batch_size)
    step = 0
    for number in range(1, config.epochs + 1):
        order = learn[torch.randperm(len(learn)).to(device)]
        total = torch.zeros((), device=device)
        for batch in order.split(config.batch_size):
            rate = config.learning_rate * pace(config, step, steps_per_epoch * config.epochs)
            step += 1
            optimiser.param_groups[0]["lr"] = rate
            warped = augment(images[batch], config.augment, warps)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = reconstruction_loss(model, warped)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(batch)
            on_batch(len(batch))
        train_mse = total.item() / len(learn)
        if not math.isfinite(train_mse):
            raise Diverged(f"the loss became {train_mse} in epoch {number}; lower learning_rate")
        val_mse = mean_squared_error(model, images[watch]) if len(watch) else None
        on_epoch(Epoch(number, train_mse, val_mse))
    return model.to(memory_format=torch.contiguous_format)


def split_for(config: TrainConfig, count: int) -> tuple[Tensor, Tensor]:
    """Indices to learn and to watch; all and none where ``fit_on`` is ``all``."""
    learn, watch = split(count, config.seed)
    return (torch.cat([learn, watch]), watch[:0]) if config.fit_on == "all" else (learn, watch)


def pace(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of a step as a share of ``learning_rate``."""
    share = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "cosine":
        share *= (1 + math.cos(math.pi * step / steps)) / 2
    return share


@torch.no_grad()
def start_from_mean(model: Autoencoder, images: Tensor) -> None:
    """Set the decoder's last bias so that the untrained model answers with the mean pixel.

    From torch's default of about 0.5 the first steps race towards MNIST's black background: they
    blow the embedding up until every sigmoid is saturated, and no gradient ever comes back (mse
    stuck at 0.11, seen with several seeds).
    """
    mean = to_unit_range(images).mean().clamp(0.01, 0.99)
    model.decoder.convolutions[-1].bias.fill_(mean.logit().item())


def reconstruction_loss(model: Autoencoder, images: Tensor) -> Tensor:
    """Mean squared error per pixel, pixels in [0, 1], of uint8[N, C, H, W]."""
    return functional.mse_loss(model(images), to_unit_range(images))


@torch.inference_mode()
def mean_squared_error(model: Autoencoder, images: Tensor) -> float:
    """The same error in float32 over any number of images."""
    batches = images.split(EVALUATION_BATCH)
    return sum(reconstruction_loss(model, b).item() * len(b) for b in batches) / len(images)


def check_shape(config: TrainConfig, dataset: Dataset) -> None:
    """Raise ConfigError unless the images are what the model is about to be built for."""
    expected = (config.input_dim, config.image_size, config.image_size)
    actual = tuple(dataset.train_images.shape[1:])
    if actual != expected:
        raise ConfigError(
            f"{dataset.name} has images of {actual} (channels, height, width), but input_dim and "
            f"image_size ask for {expected}"
        )


def choose_device(name: str) -> torch.device:
    """Resolve ``auto | cpu | cuda``; CUDA that was asked for by name must be there.

    Raises:
        ConfigError: ``cuda`` on a machine without it.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but this torch finds no CUDA device")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_precision(config: TrainConfig) -> str:
    """Resolve ``auto``: bf16 where the processor multiplies it natively, else fp32."""
    if config.precision != "auto":
        return config.precision
    if choose_device(config.device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    abilities = torch.cpu.get_capabilities()
    return "bf16" if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else "fp32"


def keep_freed_memory() -> None:
    """Ask glibc to reuse the memory of freed tensors instead of returning it to the kernel.

    Every activation is a few megabytes, which glibc maps anew on each step and the kernel zeroes
    page by page: half of the time of a step on a CPU. The three settings (mallopt(3)) are "no
    mmap", "never trim" and "grow by 256 MiB". Elsewhere than on glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # <malloc.h>
        for setting, value in (
            (m_mmap_max, 0),
            (m_trim_threshold, 2**31 - 1),
            (m_top_pad, 1 << 28),
        ):
            mallopt(setting, value)
