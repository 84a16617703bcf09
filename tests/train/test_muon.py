"""Muon: updates of even size in all directions, in training and over a restart."""

from dataclasses import replace

import pytest
import torch

from tests.train.conftest import SMALL, fit
from train.config import TrainConfig
from train.dataset import Dataset
from train.loop import Trainer
from train.model import Autoencoder
from train.muon import Muon, evened
from train.step import MUON_SHARE, Step


@pytest.mark.parametrize("shape", [(64, 576), (576, 64), (8, 8), (1, 9)])
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

    Muon([weight], lr=1.0).step()

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
            assert length == pytest.approx(1e-3 * MUON_SHARE, rel=0.3), name
        else:
            assert 6e-4 < moved.abs().max().item() < 1.02e-3, name


def test_a_restart_changes_nothing(digits: Dataset) -> None:
    """A run that is interrupted after an epoch ends with the same weights."""
    config = replace(SMALL, optimiser="muon")
    whole, part, rest = (Trainer(config, digits) for _ in range(3))
    fit(whole)

    part.run_epoch(lambda count: None)
    rest.restore(part.state())
    fit(rest)

    for one, other in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_with_one_optimiser_resumes(digits: Dataset) -> None:
    """The state of a version that knew Adam alone, under another name, is taken up."""
    trainer, again = Trainer(SMALL, digits), Trainer(SMALL, digits)
    trainer.run_epoch(lambda count: None)
    state = trainer.state()
    (state["optimiser"],) = state.pop("optimisers")
    del state["config"]["optimiser"]

    again.restore(state)

    assert again.history == trainer.history
