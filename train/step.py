"""One optimiser step, and the same step as one CUDA graph.

A step is some sixty small kernels: on a GPU, starting them one by one takes several times longer
than running them, so there they are recorded once and replayed with a single launch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from train.augment import augment
from train.config import TrainConfig
from train.device import choose_precision
from train.model import Autoencoder, to_unit_range

WARM_UP = 3  # full batches before a graph is recorded: allocations and cuDNN's choices settle


class Step:
    """Learn one batch after another.

    Attributes:
        squared: float32[], the sum of mse times images since it was last zeroed.
    """

    def __init__(self, model: Autoencoder, config: TrainConfig, random: torch.Generator) -> None:
        self._model, self._config, self._random = model, config, random
        self._device = next(model.parameters()).device
        on_cuda = self._device.type == "cuda"
        # In a graph the learning rate has to be a tensor, or its first value would be recorded.
        rate = torch.zeros((), device=self._device) if on_cuda else 0.0
        self.optimiser = torch.optim.Adam(
            model.parameters(), lr=rate, fused=True, capturable=on_cuda
        )
        self._bf16 = choose_precision(config) == "bf16"
        self.squared = torch.zeros((), device=self._device)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps."""
        (group,) = self.optimiser.param_groups
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate

    def restore(self, optimiser: dict[str, Any]) -> None:
        """Take over an optimiser's state; before the first step, which a graph would record."""
        (group,) = self.optimiser.param_groups
        rate = group["lr"]
        self.optimiser.load_state_dict(optimiser)
        self.optimiser.param_groups[0]["lr"] = rate  # the loaded one may lie on another device

    def __call__(self, images: Tensor) -> None:
        """Learn uint8[N, C, H, W], on the model's device."""
        warped = augment(images, self._config.augment, self._random)
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._bf16, cache_enabled=False
        ):
            mse, penalty = objective(self._model, warped, self._random)
        self.optimiser.zero_grad(set_to_none=True)
        (mse + self._config.kl_weight * penalty).backward()
        self.optimiser.step()
        self.squared += mse.detach() * len(images)


class CapturedStep:
    """A Step on CUDA whose kernels are started as one graph once their shapes have settled."""

    def __init__(self, step: Step, batch_size: int, random: torch.Generator) -> None:
        self._step, self._batch_size, self._random = step, batch_size, random
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input: Tensor | None = None
        self._warm = 0

    def __call__(self, images: Tensor) -> None:
        """Learn a batch; one of another size (the epoch's last) goes the ordinary way."""
        if len(images) != self._batch_size:
            self._step(images)
        elif self._warm < WARM_UP:
            self._warm += 1
            self._on_side_stream(images)
        else:
            if self._graph is None or self._input is None:
                self._graph, self._input = self._capture(images)
            self._input.copy_(images)
            self._graph.replay()

    def _on_side_stream(self, images: Tensor) -> None:
        """Learn on the stream that will be recorded, as CUDA graphs demand of a warm-up."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._step(images)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self, images: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Record one step (nothing runs meanwhile) on a batch that later ones are copied into."""
        graph, held = torch.cuda.CUDAGraph(), images.clone()
        graph.register_generator_state(self._random)
        with torch.cuda.graph(graph, stream=self._stream):
            self._step(held)
        return graph, held


def objective(model: Autoencoder, images: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """The mse per pixel, pixels in [0, 1], and the penalty on the embedding, of uint8[N, C, H, W].

    The penalty is 0 for an autoencoder. For a variational one it is the Kullback-Leibler
    divergence from the standard normal prior, per pixel, so that with ``kl_weight`` 1 the sum is
    the negative evidence lower bound for a pixel noise of variance 1/2 (Kingma & Welling 2014,
    appendix B, divided by the number of pixels).
    """
    if model.to_log_variance is None:
        mse = functional.mse_loss(model(images), to_unit_range(images))
        return mse, torch.zeros((), device=mse.device)
    features = model.encoder.features(images)
    mean = model.encoder.to_embedding(features).float()
    log_variance = model.to_log_variance(features).float()
    noise = torch.randn(mean.shape, generator=random, device=mean.device)
    sampled = mean + noise * (log_variance / 2).exp()
    mse = functional.mse_loss(model.decoder(sampled), to_unit_range(images))
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
    return mse, divergence / images[0].numel()
