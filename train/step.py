"""One optimiser step, and the same step as one CUDA graph.

A step is dozens of small kernels: on a GPU, starting them one by one takes several times longer
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

CLOSE = 0.1  # of the map's standard deviation: within it, the pull grows with the distance
WARM_UP = 3  # full batches before a graph is recorded: allocations and cuDNN's choices settle


class Step:
    """Learn one batch after another.

    Attributes:
        squared: float32[], the sum of mse times images since it was last zeroed.
        warped: float32[], the share of the images to warp.
        pull: float32[], how strongly embeddings are drawn to their places on the map.
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
        self.warped = torch.zeros((), device=self._device)
        self.pull = torch.zeros((), device=self._device)

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

    def __call__(self, images: Tensor, places: Tensor) -> None:
        """Learn uint8[N, C, H, W] with their places on the map, float32[N, D], NaN for none."""
        images = augment(images, self._config.augment, self.warped, self._random)
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._bf16, cache_enabled=False
        ):
            z, mse, penalty = objective(self._model, images, self._random)
        self.optimiser.zero_grad(set_to_none=True)
        loss = mse + self._config.kl_weight * penalty
        if self._config.layout:
            loss = loss + self.pull * distance(z, places)
        loss.backward()
        self.optimiser.step()
        self.squared += mse.detach() * len(images)


class CapturedStep:
    """A Step on CUDA whose kernels are started as one graph once their shapes have settled."""

    def __init__(self, step: Step, batch_size: int, random: torch.Generator) -> None:
        self._step, self._batch_size, self._random = step, batch_size, random
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._warm = 0

    def __call__(self, images: Tensor, places: Tensor) -> None:
        """Learn a batch; one of another size (the epoch's last) goes the ordinary way."""
        if len(images) != self._batch_size:
            self._step(images, places)
        elif self._warm < WARM_UP:
            self._warm += 1
            self._on_side_stream(images, places)
        else:
            if self._graph is None or self._inputs is None:
                self._inputs = images.clone(), places.clone()
                self._graph = self._capture(*self._inputs)
            self._inputs[0].copy_(images)
            self._inputs[1].copy_(places)
            self._graph.replay()

    def _on_side_stream(self, images: Tensor, places: Tensor) -> None:
        """Learn on the stream that will be recorded, as CUDA graphs demand of a warm-up."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._step(images, places)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self, images: Tensor, places: Tensor) -> torch.cuda.CUDAGraph:
        """Record one step (nothing runs meanwhile) on a batch that later ones are copied into."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._random)
        with torch.cuda.graph(graph, stream=self._stream):
            self._step(images, places)
        return graph


def distance(z: Tensor, places: Tensor) -> Tensor:
    """How far embeddings are from their places, both float32[N, D]; 0 for those without one.

    Huber's loss: where two neighbours pull an image apart, it may end up near one of them.
    """
    target = torch.where(places.isnan(), z.detach(), places)
    return functional.smooth_l1_loss(z, target, beta=CLOSE)


def objective(
    model: Autoencoder, images: Tensor, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Of uint8[N, C, H, W]: embeddings, mse per pixel (in [0, 1]), and a penalty on the embeddings.

    The penalty is 0 for an autoencoder. For a variational one it is the Kullback-Leibler
    divergence from the standard normal prior, per pixel, so that with ``kl_weight`` 1 the sum is
    the negative evidence lower bound for a pixel noise of variance 1/2 (Kingma & Welling 2014,
    appendix B, divided by the number of pixels).
    """
    if model.to_log_variance is None:
        z = model.encode(images)
        mse = functional.mse_loss(model.decode(z), to_unit_range(images))
        return z, mse, torch.zeros((), device=mse.device)
    features = model.encoder.features(images)
    mean = model.encoder.to_embedding(features).float()
    log_variance = model.to_log_variance(features).float()
    noise = torch.randn(mean.shape, generator=random, device=mean.device)
    sampled = mean + noise * (log_variance / 2).exp()
    mse = functional.mse_loss(model.decoder(sampled), to_unit_range(images))
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
    return mean, mse, divergence / images[0].numel()
