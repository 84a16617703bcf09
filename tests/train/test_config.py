"""The hyperparameters and the command line made from them."""

import argparse
import math

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
    ("count", "fit_on", "batch_size", "passes", "epochs"),
    [
        (15, "all", 16, 1, 40),
        (40, "all", 16, 1, 40),
        (245, "all", 16, 1, 40),
        (320, "split", 16, 4, 40),
        (4_000, "split", 128, 2, 40),
        (48_000, "split", 128, 1, 16),
        (10_000_000, "split", 128, 1, 1),
    ],
)
def test_pictures_recipe_fits_the_set(
    count: int, fit_on: str, batch_size: int, passes: int, epochs: int
) -> None:
    """Few pictures are learned whole, in small batches and repeatedly; many in fewer epochs."""
    parser = argparse.ArgumentParser()
    add_options(parser, "pictures")
    options = parser.parse_args([])

    learned = count * 4 // 5
    config = fit_to_set(from_options(options), options, learned, count - learned)

    assert (config.fit_on, config.batch_size) == (fit_on, batch_size)
    assert (config.passes, config.epochs) == (passes, epochs)
    assert config.learning_rate == pytest.approx(1e-3 * (batch_size / 128) ** 0.5)
    asked = ["--batch-size", "64", "--passes", "3", "--epochs", "7", "--start", "mean"]
    asked += ["--learning-rate", "0.002"]
    options = parser.parse_args([*asked, "--fit-on", "split"])
    fitted = fit_to_set(from_options(options), options, learned, count - learned)
    assert fitted == from_options(options)


@pytest.mark.parametrize(("learned", "validating"), [(3, 300), (450, 1), (60, 60)])
def test_groups_that_leave_too_little_are_all_learned(learned: int, validating: int) -> None:
    """Groups of unlike sizes may leave few images to learn, or few that choose the best epoch."""
    parser = argparse.ArgumentParser()
    add_options(parser, "pictures")
    options = parser.parse_args([])

    config = fit_to_set(from_options(options), options, learned, validating)

    steps = math.ceil((learned + validating) / config.batch_size)
    assert (config.fit_on, config.epochs) == ("all", min(40, 5_000 // steps))


@pytest.mark.parametrize(("channels", "start"), [(1, "pca"), (3, "mean")])
def test_a_network_without_room_for_pca_starts_from_the_mean(channels: int, start: str) -> None:
    """32 hidden channels are enough to start from PCA for grey pictures, but not for colour."""
    parser = argparse.ArgumentParser()
    add_options(parser, "pictures")
    options = parser.parse_args(["--hidden-dim", "32", "--input-dim", str(channels)])

    assert fit_to_set(from_options(options), options, 320, 80).start == start


def test_unknown_recipe_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown recipe costs one line on stderr and exit code 1."""
    assert main(["--recipe", "secret"]) == 1

    assert (
        capsys.readouterr().err
        == "train: recipe must be one of seed, best, pictures; got 'secret'\n"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("augment", float("inf")),
        ("image_size", 3),
        ("seed", 2**64),
    ],
)
def test_out_of_range_values_are_named(field: str, value: float) -> None:
    """The message names the field and shows the value."""
    with pytest.raises(ConfigError, match=rf"{field} must be .* got {value}"):
        TrainConfig(**{field: value})


def test_bad_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong hyperparameter costs one line on stderr and exit code 1."""
    assert main(["--epochs", "-3"]) == 1

    assert capsys.readouterr().err == "train: epochs must be at least 1; got -3\n"
