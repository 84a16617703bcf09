"""What is advised at the end of a run."""

from dataclasses import replace

import numpy as np
import pytest
from torch import Tensor

from tests.train.conftest import SMALL
from train.config import TrainConfig
from train.dataset import Dataset
from train.evaluate import Evaluation
from train.loop import Epoch, Trainer
from train.pca import fit_pca
from train.verdict import advise, compare, verdict

WIDE = replace(SMALL, hidden_dim=16)  # wide enough to start from PCA


def judged(digits: Dataset, images: Tensor, above: list[float]) -> list[str]:
    """What is said of a model whose errors are PCA's and, in turn, these differences."""
    pca = fit_pca(digits.train_images, 2)
    as_mean, as_pca = (each.numpy() for each in pca.errors(images, 2))
    errors = as_pca + np.resize(above, len(images))
    metrics = {"mse": errors, "pca_mse": as_pca, "mean_image_mse": as_mean}
    trainer = Trainer(SMALL, digits)
    trainer.history = [Epoch(1, 0.05, 0.05)]
    nothing = np.zeros(0)
    means = {name: float(each.mean()) for name, each in metrics.items()}
    found = Evaluation(
        means, errors, nothing, nothing, np.zeros((0, 2), np.float32), np.zeros(0, int)
    )
    return verdict(trainer, found, pca, images)


@pytest.mark.parametrize(
    ("train_mse", "best", "advice"),
    [(0.01, 9, "more pictures"), (0.05, 40, "--epochs 80"), (0.05, 9, "another --seed")],
)
def test_advice_depends_on_the_run(
    digits: Dataset, train_mse: float, best: int, advice: str
) -> None:
    """Learned by heart, still falling, or neither; a test error of 0.05 tells them apart."""
    trainer = Trainer(replace(WIDE, epochs=40), digits)
    trainer.history = [
        Epoch(number, train_mse, 0.05 + abs(number - best) / 100) for number in range(1, 41)
    ]

    assert advice in advise(trainer, 0.05)


def test_a_run_without_validation_can_be_learned_by_heart(digits: Dataset) -> None:
    """The test error is compared, so few pictures, of which none validates, are found out too."""
    trainer = Trainer(replace(WIDE, epochs=40, fit_on="all"), digits)
    trainer.history = [Epoch(number, 0.01, None) for number in range(1, 41)]

    assert "more pictures" in advise(trainer, 0.05)


def test_few_pictures_are_told_to_be_few(digits: Dataset) -> None:
    """Too few to hold a fifth back, pictures are what a run lacks, not epochs."""
    for count, advice in [(249, "of 250 training images or more"), (250, "another --seed")]:
        few = replace(digits, train_images=digits.train_images[:count])
        trainer = Trainer(replace(WIDE, epochs=40, batch_size=16, fit_on="all"), few)
        trainer.history = [Epoch(number, 0.05, None) for number in range(1, 41)]

        assert advice in advise(trainer, 0.05)


@pytest.mark.parametrize(("above", "alike"), [(0.05, True), (-0.001, False)])
def test_a_model_that_draws_all_alike_is_told(digits: Dataset, above: float, alike: bool) -> None:
    """An error like the mean image's is said in plain words."""
    said = judged(digits, digits.test_images, [above])

    assert ("it draws every picture nearly alike" in said) == alike
    assert any(line.startswith("to try: ") for line in said) == alike


@pytest.mark.parametrize(("count", "few"), [(10, True), (300, False)])
def test_too_few_test_images_are_told(digits: Dataset, count: int, few: bool) -> None:
    """Errors that are now above PCA's and now below don't prove a small difference."""
    said = judged(digits, digits.test_images[:count], [0.03, -0.02])

    assert any("are too few to tell the model from PCA" in line for line in said) == few


@pytest.mark.parametrize(
    ("config", "advice"),
    [
        (replace(SMALL, epochs=40), "--hidden-dim 16"),
        (replace(WIDE, epochs=3), "leave out --epochs"),
        (replace(WIDE, epochs=40), "more pictures"),
    ],
)
def test_what_the_command_asked_for_is_advised_first(
    digits: Dataset, config: TrainConfig, advice: str
) -> None:
    """Of few pictures, a narrow network or a short run is told before their number."""
    few = replace(digits, train_images=digits.train_images[:100])
    trainer = Trainer(replace(config, fit_on="all"), few)
    trainer.history = [Epoch(number, 0.05, None) for number in range(1, config.epochs + 1)]

    assert advice in advise(trainer, 0.05)


def test_pictures_that_are_all_the_same_are_told(digits: Dataset) -> None:
    """They get no advice, and an error that is nothing isn't divided by."""
    same = digits.train_images[:1].expand(20, -1, -1, -1)

    said = judged(replace(digits, train_images=same), same, [1e-4])

    assert said == ["all pictures are the same: there is nothing to learn"]
    assert (compare(5e-4, 8e-10), compare(0, 0)) == ("above", "equal to")


def test_small_differences_are_told_finely() -> None:
    """A model half a percent from PCA isn't said to be 0 % from it."""
    assert compare(0.0201, 0.02) == "0.5 % above"
    assert compare(0.014, 0.02) == "30 % below"
