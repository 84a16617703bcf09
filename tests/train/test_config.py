"""The hyperparameters and the command line made from them."""

import argparse

import pytest

from train.__main__ import main
from train.config import RECIPES, TrainConfig, add_options, fit_to_set, from_options
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

    given = {name: value for name, value in RECIPES[recipe].items() if value is not None}
    assert from_options(parser.parse_args([])) == TrainConfig(**given)
    assert from_options(parser.parse_args(["--epochs", "3"])).epochs == 3


@pytest.mark.parametrize(
    ("count", "batch_size", "passes"),
    [(15, 16, 8), (40, 16, 8), (320, 16, 4), (4_000, 128, 2), (48_000, 128, 1)],
)
def test_pictures_recipe_fits_the_set(count: int, batch_size: int, passes: int) -> None:
    """A small set is learned in small batches, up to 50 steps and 8 passes an epoch."""
    parser = argparse.ArgumentParser()
    add_options(parser, "pictures")
    options = parser.parse_args([])

    config = fit_to_set(from_options(options), options, count)

    assert (config.batch_size, config.passes) == (batch_size, passes)
    asked = parser.parse_args(["--batch-size", "64", "--passes", "3"])
    assert fit_to_set(from_options(asked), asked, count).batch_size == 64
    assert fit_to_set(from_options(asked), asked, count).passes == 3


def test_unknown_recipe_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown recipe costs one line on stderr and exit code 1."""
    assert main(["--recipe", "secret"]) == 1

    assert (
        capsys.readouterr().err
        == "train: recipe must be one of seed, best, pictures; got 'secret'\n"
    )


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
