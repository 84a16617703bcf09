"""The training loop: what ends it, what it refuses, and both kinds of model."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.train.conftest import SMALL, fit
from train.config import TrainConfig
from train.dataset import Dataset
from train.errors import ConfigError, Diverged
from train.loop import Trainer
from train.model import Autoencoder
from train.step import Step


def test_diverging_run_stops(digits: Dataset) -> None:
    """A loss that is NaN or infinite ends the run, and the message says what to change."""
    config = TrainConfig(dataset="digits", hidden_dim=4, learning_rate=1e30, epochs=2)

    trainer = Trainer(config, digits)

    with pytest.raises(Diverged, match="learning_rate"):
        fit(trainer)
    assert len(trainer.history) < 2


def test_images_must_fit_the_model(digits: Dataset) -> None:
    """Images of another size than the model's are refused before the first step."""
    config = TrainConfig(dataset="digits", image_size=32)

    with pytest.raises(ConfigError, match=r"\(1, 28, 28\).*image_size"):
        Trainer(config, digits)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_never_replaced_silently(digits: Dataset) -> None:
    """--device cuda without CUDA is an error."""
    with pytest.raises(ConfigError, match="no CUDA device"):
        Trainer(TrainConfig(device="cuda"), digits)


def test_patience_ends_the_run_and_keeps_the_best(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs after the best the run ends, with the best weights, over a restart too."""
    errors = iter([0.5, 0.3, 0.4, 0.35])
    monkeypatch.setattr(Trainer, "_val_mse", lambda self: next(errors))
    config = replace(SMALL, epochs=99, patience=2)
    trainer = Trainer(config, digits)
    while not trainer.finished:
        trainer.run_epoch(lambda count: None)
        if len(trainer.history) == 2:
            best = {name: part.clone() for name, part in trainer.model.state_dict().items()}
        if len(trainer.history) == 3:
            state, trainer = trainer.state(), Trainer(config, digits)
            trainer.restore(state)

    assert (len(trainer.history), trainer.best_epoch) == (4, 2)
    trainer.take_best()
    for name, weights in trainer.model.state_dict().items():
        assert torch.equal(weights, best[name])


def test_a_small_set_is_passed_repeatedly(digits: Dataset) -> None:
    """With three passes an epoch learns every image three times."""
    small = replace(digits, train_images=digits.train_images[:50])
    counts: list[int] = []

    trainer = Trainer(replace(SMALL, passes=3, batch_size=16), small)
    trainer.run_epoch(counts.append)

    assert sum(counts) == trainer.images_per_epoch == 3 * 40
    assert trainer.steps == len(counts)


@pytest.mark.parametrize("model", ["ae", "vae"])
@pytest.mark.parametrize(("size", "share"), [(28, 1.0), (56, 0.25)])
def test_an_embedding_of_more_inputs_learns_more_slowly(
    size: int, share: float, model: str
) -> None:
    """Adam's first step moves a weight by its rate: that of four times the inputs is a quarter."""
    network = Autoencoder(TrainConfig(image_size=size, model=model))
    step = Step(network, TrainConfig(device="cpu"), torch.Generator())
    images = torch.randint(0, 256, (4, 1, size, size), dtype=torch.uint8)
    before = [part.clone() for part in network.parameters()]

    step.set_rate(1e-3)
    step(images, torch.zeros(4, 2))

    for (name, now), then in zip(network.named_parameters(), before, strict=True):
        sums_up = "encoder.to_embedding.weight" in name or "to_log_variance.weight" in name
        most = 1e-3 * (share if sums_up else 1.0)
        assert 0.6 * most < (now - then).abs().max().item() < 1.02 * most, name


def test_variational_model_embeds_its_mean(digits: Dataset) -> None:
    """Embeddings of a variational model have no noise, and the penalty pulls them to the prior."""
    spreads = {}
    for weight in (0.0, 100.0):
        trainer = Trainer(replace(SMALL, model="vae", kl_weight=weight), digits)
        fit(trainer)
        model, images = trainer.model.eval(), digits.test_images
        with torch.inference_mode():
            assert torch.equal(model.encode(images), model.encode(images))
            spreads[weight] = model.encode(images).square().mean().item()

    assert spreads[100.0] < spreads[0.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16", "optimiser": "muon", "layout": 0.05},
        {"precision": "fp32", "model": "vae", "warps": "photograph"},
    ],
)
def test_captured_step_learns_like_the_plain_one(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """A replayed graph gives the losses of the same kernels launched one by one, warps included.

    The tolerance is for CUDA's sums, which vary a little, and for what four epochs make of that.
    """
    monkeypatch.setattr("train.layout.SAMPLE", 100)  # a map of 100 images takes a second
    config = replace(SMALL, device="cuda", batch_size=64, **changes)
    captured, plain = Trainer(config, digits), Trainer(config, digits)
    plain._learn_batch = plain._step

    for one, other in zip(fit(captured), fit(plain), strict=True):
        assert one.train_mse == pytest.approx(other.train_mse, rel=2e-2)
