"""What an optimiser step does beside following the gradient."""

import pytest
import torch

from train.config import TrainConfig
from train.model import Autoencoder
from train.step import MUON_RATIO, Step, inner_weights


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_only_the_encoder_decays(optimiser: str) -> None:
    """A step with decay ends lower than one without, by rate · decay · weight, in the encoder."""
    rate, decay = 1e-2, 0.5
    before, after = [], []
    for share in (0.0, decay):
        torch.manual_seed(0)
        config = TrainConfig(device="cpu", hidden_dim=8, optimiser=optimiser, encoder_decay=share)
        network = Autoencoder(config)
        before = [part.detach().clone() for part in network.parameters()]
        step = Step(network, config, torch.Generator())
        step.set_rate(rate)
        step(torch.arange(2 * 784).view(2, 1, 28, 28).to(torch.uint8), torch.zeros(2, 2))
        after.append([part.detach() for part in network.parameters()])

    by_muon = {id(part) for part in inner_weights(network)} if optimiser == "muon" else set()
    encoders = {id(part) for part in network.encoder.parameters()}
    for part, start, plain, decayed in zip(network.parameters(), before, *after, strict=True):
        share = decay * (MUON_RATIO if id(part) in by_muon else 1) if id(part) in encoders else 0
        assert torch.allclose(plain - decayed, rate * share * start, atol=1e-6)
