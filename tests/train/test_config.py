"""The hyperparameters and the command line made from them."""

import argparse

import pytest

from train.__main__ import main
from train.config import RECIPES, TrainConfig, add_options, from_options
from train.errors import ConfigError


def test_defaults_are_the_published_recipe() -> None:
    """The defaults have the names and values of the recipe that this project grew from."""
    config = TrainConfig()

    assert (config.input_dim, config.hidden_dim, config.output_dim) == (1, 64, 2)
    assert (config.batch_size, config.learning_rate, config.epochs) == (64, 5e-4, 200)
    assert config.leaky_relu == 0.01


def test_every_field_is_an_option() -> None:
    """An option's value arrives in the configuration, with the field's type."""
    parser = argparse.ArgumentParser()
    add_options(parser, "seed")

    options = parser.parse_args(["--learning-rate", "1e-3", "--output-dim", "3"])

    assert from_options(options) == TrainConfig(learning_rate=1e-3, output_dim=3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_are_defaults(recipe: str) -> None:
    """A recipe gives the defaults, and an option on the command line overrides them."""
    parser = argparse.ArgumentParser()
    add_options(parser, recipe)

    assert from_options(parser.parse_args([])) == TrainConfig(**RECIPES[recipe])
    assert from_options(parser.parse_args(["--epochs", "3"])).epochs == 3


def test_unknown_recipe_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown recipe costs one line on stderr and exit code 1."""
    assert main(["--recipe", "secret"]) == 1

    assert capsys.readouterr().err == "train: recipe must be one of seed, best; got 'secret'\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("learning_rate", -1e-3), ("learning_rate", float("nan")), ("image_size", 3)],
)
def test_out_of_range_values_are_named(field: str, value: float) -> None:
    """The message names the field and shows the value."""
    with pytest.raises(ConfigError, match=rf"{field} must be .* got {value}"):
        TrainConfig(**{field: value})


def test_bad_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong hyperparameter costs one line on stderr and exit code 1."""
    assert main(["--epochs", "-3"]) == 1

    assert capsys.readouterr().err == "train: epochs must be at least 1; got -3\n"
