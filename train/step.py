"""An optimiser step, and the same step as a CUDA graph.

A step is dozens of small kernels. On a GPU, launching these kernels one by one takes several times
longer than running them. So the step is recorded once as a CUDA graph, and the graph is replayed
with a single launch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.augment import augment, relight
from train.config import TrainConfig
from train.device import choose_precision
from train.model import Autoencoder, to_unit_range
from train.muon import Muon

# The beta of Huber's loss, in standard deviations of the map: below this distance the pull grows
# with the distance, above it the pull is constant.
HUBER_BETA = 0.1
# The inputs that an embedding sums up in the network of the published recipe. A step of Adam moves
# each weight by up to the learning rate, so it moves the sum of twice as many inputs twice as far.
# Therefore the weights of more inputs learn more slowly (Yang et al. 2022, "Tensor Programs V").
USUAL_INPUTS = 64 * 7 * 7
MUON_RATIO = 10.0  # Muon's learning rate is so many times Adam's (docs/experiments.md)
# Full batches that are learned before the graph is recorded: by then memory is allocated and cuDNN
# has chosen its algorithms.
WARM_UP_BATCHES = 3


class Step:
    """Learn one batch after another.

    Attributes:
        mse_sum: float32[], the sum of every learned image's mse since the caller zeroed it.
        warped_share: float32[], the share of the images to warp.
        pull: float32[], how strongly embeddings are drawn to their places on the map.
    """

    def __init__(self, model: Autoencoder, config: TrainConfig, random: torch.Generator) -> None:
        self._model, self._config, self._random = model, config, random
        self._device = next(model.parameters()).device
        on_cuda = self._device.type == "cuda"
        by_muon, by_adam = parameter_groups(model, config)
        self._shares = [group.pop("share") for group in by_adam + by_muon]
        for group in by_adam + by_muon:
            # A CUDA graph keeps a float as recorded, but reads a tensor again on every replay.
            group["lr"] = torch.zeros((), device=self._device) if on_cuda else 0.0
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(by_adam, fused=True, capturable=on_cuda)
        ]
        if by_muon:
            self.optimisers.append(Muon(by_muon))
        self._bf16 = choose_precision(config) == "bf16"
        self.mse_sum = torch.zeros((), device=self._device)
        self.warped_share = torch.zeros((), device=self._device)
        self.pull = torch.zeros((), device=self._device)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next steps."""
        for group, share in zip(self._groups(), self._shares, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * share)
            else:
                group["lr"] = rate * share

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Take over the optimisers' states.

        Call this before the first step: a recorded graph would go on using the tensors of the
        state before.

        Raises:
            ValueError: the state is of another network.
        """
        rates = [group["lr"] for group in self._groups()]
        for optimiser, state in zip(self.optimisers, states, strict=True):
            optimiser.load_state_dict(state)
        for group, own in zip(self._groups(), rates, strict=True):
            group["lr"] = own  # the loaded rate may lie on another device

    def __call__(self, images: Tensor, places: Tensor) -> None:
        """Learn a batch.

        Args:
            images: uint8[N, C, H, W].
            places: float32[N, D], the images' places on the map; NaN for an image without a place.
        """
        change = relight if self._config.warps == "photograph" else augment
        images = change(images, self._config.augment, self.warped_share, self._random)
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._bf16, cache_enabled=False
        ):
            z, mse, penalty = objective(self._model, images, self._random)
        self._model.zero_grad(set_to_none=True)
        loss = mse + self._config.kl_weight * penalty
        if self._config.layout:
            loss = loss + self.pull * distance(z, places)
        torch.autograd.backward(loss)
        for optimiser in self.optimisers:
            optimiser.step()
        self.mse_sum += mse.detach() * len(images)


class CapturedStep:
    """A Step on CUDA that is recorded as a CUDA graph after a few batches, and then replayed."""

    def __init__(self, step: Step, batch_size: int, random: torch.Generator) -> None:
        self._step, self._batch_size, self._random = step, batch_size, random
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no hint
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._warm_up_batches = 0

    def __call__(self, images: Tensor, places: Tensor) -> None:
        """Learn a batch; a smaller batch (the last of an epoch) without the graph."""
        if len(images) != self._batch_size:
            self._step(images, places)
        elif self._warm_up_batches < WARM_UP_BATCHES:
            self._warm_up_batches += 1
            self._on_side_stream(images, places)
        else:
            if self._graph is None or self._inputs is None:
                self._inputs = images.clone(), places.clone()
                self._graph = self._capture(*self._inputs)
            self._inputs[0].copy_(images)
            self._inputs[1].copy_(places)
            self._graph.replay()

    def _on_side_stream(self, images: Tensor, places: Tensor) -> None:
        """Learn on the stream that will be recorded: CUDA graphs demand a warm-up there."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._step(images, places)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self, images: Tensor, places: Tensor) -> torch.cuda.CUDAGraph:
        """Record a step without running it; later batches are copied into these two tensors."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._random)
        with torch.cuda.graph(graph, stream=self._stream):
            self._step(images, places)
        return graph


def parameter_groups(
    model: Autoencoder, config: TrainConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What Muon learns and what Adam learns: all parameters, in groups with the same settings.

    Returns:
        Two lists of groups as optimisers take them, each with the ``share`` of the learning rate
        that it learns at.
    """
    muons = {id(part) for part in inner_weights(model)} if config.optimiser == "muon" else set()
    encoders = {id(part) for part in model.encoder.parameters()}
    slow = slow_weights(model)
    groups: dict[tuple[bool, float, float], list[Tensor]] = {}
    for part in model.parameters():
        by_muon = id(part) in muons
        share = MUON_RATIO if by_muon else slow.get(id(part), 1.0)
        decay = config.encoder_decay if id(part) in encoders else 0.0
        groups.setdefault((by_muon, share, decay), []).append(part)
    of_muon: list[dict[str, Any]] = []
    of_adam: list[dict[str, Any]] = []
    for (by_muon, share, decay), parts in groups.items():
        group = {"params": parts, "share": share, "weight_decay": decay}
        (of_muon if by_muon else of_adam).append(group)
    return of_muon, of_adam


def inner_weights(model: Autoencoder) -> list[Tensor]:
    """The weights of the convolutions between hidden channels."""
    layers = [*model.encoder.convolutions, *model.decoder.convolutions]
    weights = [layer.weight for layer in layers if not isinstance(layer, nn.LeakyReLU)]
    return weights[1:-1]


def slow_weights(model: Autoencoder) -> dict[int, float]:
    """The ids of weights that learn at less than the learning rate, and at what share of it."""
    inputs = model.encoder.to_embedding.in_features
    if inputs <= USUAL_INPUTS:
        return {}
    layers = (model.encoder.to_embedding, model.to_log_variance)
    return {id(layer.weight): USUAL_INPUTS / inputs for layer in layers if layer is not None}


def distance(z: Tensor, places: Tensor) -> Tensor:
    """Huber's loss between embeddings and their places, both float32[N, D].

    An embedding without a place (NaN) has a loss of 0. Under the squared distance, an image that
    belongs to two neighbourhoods would end up half-way between the two; under Huber's loss the
    image may end up near either of them.
    """
    target = torch.where(places.isnan(), z.detach(), places)
    return functional.smooth_l1_loss(z, target, beta=HUBER_BETA)


def objective(
    model: Autoencoder, images: Tensor, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """What a batch, uint8[N, C, H, W], is to learn.

    The penalty is 0 for an autoencoder. For a variational autoencoder it is the Kullback-Leibler
    divergence from the standard normal prior, per pixel, so that with ``kl_weight`` 1 the sum of
    mse and penalty is the negative evidence lower bound for a pixel noise of variance 1/2 (Kingma &
    Welling 2014, appendix B, divided by the number of pixels).

    Returns:
        Embeddings float32[N, D]; the mse per pixel, pixels in [0, 1]; and the penalty on the
        embeddings.
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
