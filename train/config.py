"""The hyperparameters: one plain dataclass, from which the command line is generated.

Names and defaults of the first seven are those of the published recipe this project grew from.
"""

import argparse
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from train.errors import ConfigError


def option(default: Any, help: str, *, over: float | None = None, **argparse_options: Any) -> Any:
    """Declare a field: its default, its ``--help`` text and the limit it must stay above."""
    return field(default=default, metadata={"help": help, "over": over, **argparse_options})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run, bar the data itself.

    Raises:
        ConfigError: a value is out of range.
    """

    input_dim: int = option(1, "channels of the images", over=0)
    hidden_dim: int = option(64, "channels of every convolution", over=0)
    output_dim: int = option(2, "width of the embedding", over=0)
    batch_size: int = option(64, "images per optimiser step", over=0)
    learning_rate: float = option(5e-4, "Adam's step size", over=0)
    epochs: int = option(200, "passes over the training split", over=0)
    leaky_relu: float = option(0.01, "negative slope of LeakyReLU")
    schedule: str = option(
        "constant",
        "of the learning rate (cosine: down to 0 at the end)",
        choices=("constant", "cosine"),
    )
    warmup_steps: int = option(0, "optimiser steps to reach learning_rate", over=-1)
    augment: float = option(0.0, "strength of random warps; 1 is a human hand's", over=-1)
    fit_on: str = option(
        "split",
        "images to learn: 80 % of them (split), or all once nothing is left to choose",
        choices=("split", "all"),
    )
    image_size: int = option(28, "height and width in pixels", over=3)
    dataset: str = option("mnist", "which images to learn", choices=("mnist", "digits"))
    seed: int = option(0, "of the weights, the split and the order of the images", over=-1)
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
    """Raise ConfigError unless ``value`` fits the limit and the choices the field declares."""
    over, choices = spec.metadata["over"], spec.metadata.get("choices")
    if over is not None and not value > over:
        raise ConfigError(f"{spec.name} must be greater than {over}; got {value}")
    if choices and value not in choices:
        raise ConfigError(f"{spec.name} must be one of {', '.join(choices)}; got {value!r}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` one ``--option`` for each field of TrainConfig."""
    for spec in fields(TrainConfig):
        extra = {key: spec.metadata[key] for key in spec.metadata if key not in ("help", "over")}
        parser.add_argument(
            "--" + spec.name.replace("_", "-"),
            type=type(spec.default),
            default=spec.default,
            help=f"{spec.metadata['help']} (default: {spec.default})",
            **extra,
        )


def from_options(options: argparse.Namespace) -> TrainConfig:
    """Collect a TrainConfig from parsed options.

    Raises:
        ConfigError: a value is out of range.
    """
    return TrainConfig(**{spec.name: getattr(options, spec.name) for spec in fields(TrainConfig)})


def as_json(config: TrainConfig) -> dict[str, Any]:
    """The configuration as card.json stores it."""
    return asdict(config)
