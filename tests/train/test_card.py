"""What a card says about how its model was made."""

import shlex

import pytest

from train.__main__ import parse
from train.card import command
from train.config import RECIPES, TrainConfig, from_options


@pytest.mark.parametrize("recipe", ["seed", "best"])
def test_its_command_makes_the_same_configuration(recipe: str) -> None:
    """Whatever differs from the recipe is an option of the command."""
    config = TrainConfig(**RECIPES[recipe] | {"seed": 7, "fit_on": "all", "kl_weight": 0.01})
    words = shlex.split(command(config))

    assert words[:5] == ["python", "-m", "train", "--recipe", recipe]
    assert from_options(parse(words[3:])) == config
