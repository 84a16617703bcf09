"""The hyperparameters: one plain dataclass, from which the command line is generated.

Names and defaults of the first seven are those of the published recipe this project grew from.
"""

import argparse
from dataclasses import Field, dataclass, field, fields
from typing import Any

from train.errors import ConfigError

DATASETS = ("mnist", "fashion-mnist", "kmnist", "emnist", "digits", "folder")

# What the command line starts from. ``seed`` is the published recipe: the defaults below. ``best``
# is the best of docs/experiments.md: warped images keep the encoder honest (the last steps see
# them as they are: warping blurs), t-SNE tells it what belongs together, and a falling rate makes
# the long run pay.
RECIPES: dict[str, dict[str, Any]] = {
    "seed": {},
    "best": {
        "batch_size": 128,
        "learning_rate": 2e-3,
        "epochs": 140,
        "schedule": "cosine",
        "warmup_steps": 500,
        "augment": 1.0,
        "augment_fade": 0.6,
        "layout": 0.05,
    },
}

SHAPE = ("input_dim", "image_size")  # fields that the dataset decides where nobody else does


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare a field: its default, its ``--help`` text and what its value must keep to."""
    limits = {"least": least, "above": above, "choices": choices}
    return field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run, bar the images themselves.

    Raises:
        ConfigError: a value is out of range.
    """

    input_dim: int = option(1, "channels of the images", least=1)
    hidden_dim: int = option(64, "channels of every convolution", least=1)
    output_dim: int = option(2, "width of the embedding", least=1)
    batch_size: int = option(64, "images per optimiser step", least=1)
    learning_rate: float = option(5e-4, "Adam's step size", above=0)
    epochs: int = option(200, "passes over the images", least=1)
    leaky_relu: float = option(0.01, "negative slope of LeakyReLU", least=0)
    schedule: str = option(
        "constant",
        "of the learning rate (cosine: down to 0 at the end)",
        choices=("constant", "cosine"),
    )
    warmup_steps: int = option(
        0, "steps to reach learning_rate, at most a twentieth of all", least=0
    )
    augment: float = option(0.0, "strength of random warps; 1 is a human hand's", least=0)
    augment_fade: float = option(
        0.0, "part of the run, its end, in which warps get rarer, down to none", least=0
    )
    layout: float = option(
        0.0,
        "pull of an embedding of 1 or 2 numbers towards a t-SNE map, fading to 0 at the end",
        least=0,
    )
    model: str = option("ae", "autoencoder or variational autoencoder", choices=("ae", "vae"))
    kl_weight: float = option(1.0, "of the vae's divergence from its prior", least=0)
    image_size: int = option(28, "height and width in pixels", least=4)
    dataset: str = option("mnist", "images to learn", choices=DATASETS)
    fit_on: str = option(
        "split",
        "80 %% of the images (split), or all once nothing is left to choose",
        choices=("split", "all"),
    )
    seed: int = option(0, "of the weights, the split and the order of the images", least=0)
    device: str = option("auto", "where to train", choices=("auto", "cpu", "cuda"))
    precision: str = option(
        "auto",
        "of the convolutions; weights stay float32 (auto: bf16 where the processor has it)",
        choices=("auto", "fp32", "bf16"),
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            check_range(spec, getattr(self, spec.name))


def check_range(spec: Field[Any], value: Any) -> None:
    """Raise ConfigError unless ``value`` keeps to what the field declares; NaN never does."""
    least, above, choices = (spec.metadata[key] for key in ("least", "above", "choices"))
    if least is not None and not value >= least:
        raise ConfigError(f"{spec.name} must be at least {least}; got {value}")
    if above is not None and not value > above:
        raise ConfigError(f"{spec.name} must be greater than {above}; got {value}")
    if choices and value not in choices:
        raise ConfigError(f"{spec.name} must be one of {', '.join(choices)}; got {value!r}")


def add_options(parser: argparse.ArgumentParser, recipe: str) -> None:
    """Give ``parser`` one ``--option`` for each field, with the recipe's defaults.

    Raises:
        ConfigError: there is no such recipe.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"recipe must be one of {', '.join(RECIPES)}; got {recipe!r}")
    for spec in fields(TrainConfig):
        of_images = spec.name in SHAPE
        parser.add_argument(
            "--" + spec.name.replace("_", "-"),
            type=type(spec.default),
            default=None if of_images else RECIPES[recipe].get(spec.name, spec.default),
            choices=spec.metadata["choices"],
            help=spec.metadata["help"]
            + (" (default: the dataset's)" if of_images else " (default: %(default)s)"),
        )


def from_options(options: argparse.Namespace) -> TrainConfig:
    """Collect a TrainConfig from parsed options.

    Raises:
        ConfigError: a value is out of range.
    """
    values = {spec.name: getattr(options, spec.name) for spec in fields(TrainConfig)}
    return TrainConfig(**{name: value for name, value in values.items() if value is not None})
