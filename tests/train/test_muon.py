"""Muon: updates of even size in all directions, of the right layers."""

import pytest
import torch

from train.config import TrainConfig
from train.model import Autoencoder
from train.muon import Muon, evened
from train.step import MUON_RATIO, Step, inner_weights


@pytest.mark.parametrize("shape", [(64, 576), (8, 8), (1, 9)])
def test_singular_values_become_even(shape: tuple[int, int]) -> None:
    """The singular vectors stay; the singular values, here from 0.03 to 1, come close to 1."""
    random = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=random), full_matrices=False)
    values = torch.logspace(-1.5, 0, len(right))

    values_after = torch.diag(left.T @ evened(left @ torch.diag(values) @ right) @ right.T)

    assert 0.65 < values_after.min() <= values_after.max() < 1.25


def test_a_gradient_of_0_moves_nothing() -> None:
    """An update without a direction is no update, and no NaN."""
    weight = torch.ones(4, 4, 3, 3, requires_grad=True)
    weight.grad = torch.zeros_like(weight)

    Muon([{"params": [weight], "lr": 1.0}]).step()

    assert torch.equal(weight, torch.ones_like(weight))


def test_only_the_inner_convolutions_learn_by_muon() -> None:
    """Their first step is as long in every direction; Adam's moves a weight by its rate."""
    config = TrainConfig(device="cpu", hidden_dim=8, optimiser="muon")
    network = Autoencoder(config)
    step = Step(network, config, torch.Generator())
    before = [part.clone() for part in network.parameters()]

    step.set_rate(1e-3)
    step(torch.randint(0, 256, (16, 1, 28, 28), dtype=torch.uint8), torch.zeros(16, 2))

    for (name, now), then in zip(network.named_parameters(), before, strict=True):
        moved = (now - then).detach()
        if now.shape == (8, 8, 3, 3):
            length = torch.linalg.matrix_norm(moved.flatten(1), 2).item()
            assert length == pytest.approx(1e-3 * MUON_RATIO, rel=0.3), name
        else:
            assert 6e-4 < moved.abs().max().item() < 1.02e-3, name


@pytest.mark.parametrize("channels", [1, 3])
def test_as_many_hidden_channels_as_the_images_have(channels: int) -> None:
    """The first and the last convolution aren't between hidden channels, whatever their shape."""
    network = Autoencoder(TrainConfig(input_dim=channels, hidden_dim=channels))

    inner = inner_weights(network)

    assert len(inner) == 6
    for outer in (network.encoder.convolutions[0], network.decoder.convolutions[-1]):
        assert all(part is not outer.weight for part in inner)
