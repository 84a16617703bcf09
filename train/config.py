"""The hyperparameters: one plain dataclass, from which the command line is generated.

The first seven have the names and defaults of the published recipe that this project grew from.
"""

import argparse
import math
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from train.errors import ConfigError

DATASETS = ("mnist", "fashion-mnist", "kmnist", "emnist", "digits", "folder")

# Sets of defaults for the command line. ``seed`` is the published recipe: the defaults of
# TrainConfig. ``best`` is what docs/experiments.md came to, and what the shipped weights were made
# by. Warped images and decaying weights keep the encoder from memorising the training images. Over
# the last 72 epochs fewer and fewer images are warped, because callers' images aren't warped. The
# t-SNE map tells the encoder which images belong together. Muon learns in one epoch more than Adam
# does in two. ``pictures`` is for anyone's own images, 50 or 60,000 of them (docs/own-model.md).
# What it says is None fits the set (``fit_to_set``).
RECIPES: dict[str, dict[str, Any]] = {
    "seed": {},
    "best": {
        "batch_size": 128,
        "learning_rate": 2e-3,
        "epochs": 120,
        "optimiser": "muon",
        "encoder_decay": 0.1,
        "schedule": "cosine",
        "warmup_steps": 500,
        "augment": 1.0,
        "augment_fade": 0.6,
        "layout": 0.05,
    },
    "pictures": {
        "start": None,
        "fit_on": None,
        "batch_size": None,
        "learning_rate": None,
        "epochs": None,
        "passes": None,
        "patience": 15,
        "schedule": "cosine",
        "warmup_steps": 100,
        "augment": 1.0,
        "augment_fade": 1.0,
        "warps": "photograph",
    },
}
# Fewer validation images say too little to choose an epoch by, so all images are learned. Where 8
# of 50 pictures validated, the weights that they chose were 7 % worse than the last ones.
FEWEST_VALIDATING = 50
# How long the recipe ``pictures`` trains. Where epochs are compared by validation images, a small
# set is passed repeatedly in an epoch, so that the weights compared differ by more than a few
# steps. Without validation images nothing would stop a run that learns its pictures by heart: after
# 40 passes nearly every set is below PCA's error, after 160 many aren't.
EPOCH_STEPS = 50  # steps of an epoch that are worth another pass
MOST_EPOCHS = 40
MOST_STEPS = 5_000
RATE = 1e-3  # for batches of 128; the rate goes with the root of the batch size
MOST_SEED = 2**64 - 1  # torch takes no greater
WIDEST_MAP = 2  # most numbers of an embedding that t-SNE finds a place for
PCA_CHANNELS = 16  # hidden_dim, for each channel of the images, that starting from PCA takes


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare a field: its default, its ``--help`` text and the limits of its value."""
    limits = {"least": least, "above": above, "most": most, "choices": choices}
    return field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run, except the images.

    Raises:
        ConfigError: a value is out of range.
    """

    input_dim: int = option(1, "channels of the images: 1 is grey, 3 is RGB", least=1)
    hidden_dim: int = option(64, "channels between the convolutions", least=1, most=4_096)
    output_dim: int = option(2, "numbers in an embedding", least=1, most=65_536)
    batch_size: int = option(64, "images per optimiser step", least=1, most=1_000_000)
    learning_rate: float = option(5e-4, "Adam's step size", above=0)
    epochs: int = option(200, "rounds through the training images", least=1)
    leaky_relu: float = option(0.01, "negative slope of LeakyReLU", least=0)
    passes: int = option(1, "times that an epoch learns each training image", least=1, most=1_000)
    patience: int = option(
        0,
        "epochs without a lower validation error that end the run, whose best weights are kept; 0: "
        "train to the last epoch and keep its weights",
        least=0,
    )
    start: str = option(
        "mean",
        "what the untrained network draws: the mean pixel, or what PCA would draw, for which "
        "hidden_dim must be 16 times input_dim or more",
        choices=("mean", "pca"),
    )
    optimiser: str = option(
        "adam",
        "what trains the convolutions between hidden channels; Muon at ten times the learning "
        "rate; Adam trains the other layers",
        choices=("adam", "muon"),
    )
    encoder_decay: float = option(
        0.0,
        "weight decay of the encoder: each step shrinks the encoder's weights by the learning rate "
        "times this share",
        least=0,
    )
    schedule: str = option(
        "constant",
        "learning rate over the run: constant, or along a cosine to 0 at the end",
        choices=("constant", "cosine"),
    )
    warmup_steps: int = option(0, "steps of learning-rate warm-up, at most 1/20 of all", least=0)
    augment: float = option(0.0, "strength of random warps; 0: none", least=0)
    warps: str = option(
        "handwriting",
        "what augment does: bend and slant as another hand would, or move and relight as another "
        "photograph would",
        choices=("handwriting", "photograph"),
    )
    augment_fade: float = option(0.0, "final share of the run in which warps get rarer", least=0)
    layout: float = option(
        0.0,
        "pull of embeddings of 1 or 2 numbers towards a t-SNE map, falling to 0 at the end",
        least=0,
    )
    model: str = option("ae", "autoencoder or variational autoencoder", choices=("ae", "vae"))
    kl_weight: float = option(1.0, "vae only: weight of the divergence from the prior", least=0)
    image_size: int = option(
        28, "height and width in pixels; folder images are resized", least=4, most=2_048
    )
    dataset: str = option("mnist", "images to learn", choices=DATASETS)
    fit_on: str = option(
        "split",
        "train on 80 %% of the images and validate on the others (split), or train on all images",
        choices=("split", "all"),
    )
    seed: int = option(
        0, "seed of the weights, the split, the order and the warps", least=0, most=MOST_SEED
    )
    device: str = option("auto", "where to train", choices=("auto", "cpu", "cuda"))
    precision: str = option(
        "auto",
        "format of the convolutions; auto: bf16 where the processor has it; weights stay fp32",
        choices=("auto", "fp32", "bf16"),
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            check_range(spec, getattr(self, spec.name))
        least = PCA_CHANNELS * self.input_dim
        if self.start == "pca" and self.hidden_dim < least:
            raise ConfigError(
                f"to start from pca, hidden_dim must be at least {least} for images of "
                f"{self.input_dim} channels; got {self.hidden_dim}"
            )


def check_range(spec: Field[Any], value: Any) -> None:
    """Raise ConfigError unless ``value`` is finite and within the field's limits."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{spec.name} must be finite; got {value}")
    least, above, most, choices = (
        spec.metadata[key] for key in ("least", "above", "most", "choices")
    )
    if least is not None and not value >= least:
        raise ConfigError(f"{spec.name} must be at least {least}; got {value}")
    if above is not None and not value > above:
        raise ConfigError(f"{spec.name} must be greater than {above}; got {value}")
    if most is not None and not value <= most:
        raise ConfigError(f"{spec.name} must be at most {most}; got {value}")
    if choices and value not in choices:
        raise ConfigError(f"{spec.name} must be one of {', '.join(choices)}; got {value!r}")


def add_options(parser: argparse.ArgumentParser, recipe: str) -> None:
    """Give ``parser`` an ``--option`` for each field, with the recipe's defaults.

    ``--input-dim`` has no default, nor has what the recipe says is None: where they aren't given,
    the dataset decides.

    Raises:
        ConfigError: there is no such recipe.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"recipe must be one of {', '.join(RECIPES)}; got {recipe!r}")
    for spec in fields(TrainConfig):
        default: Any = RECIPES[recipe].get(spec.name, spec.default)
        shown = "what fits the images" if default is None else "%(default)s"
        if spec.name == "input_dim":
            default, shown = None, "what the images have"
        parser.add_argument(
            "--" + spec.name.replace("_", "-"),
            type=type(spec.default),
            default=default,
            choices=spec.metadata["choices"],
            help=f"{spec.metadata['help']} (default: {shown})",
        )


def from_options(options: argparse.Namespace) -> TrainConfig:
    """Collect a TrainConfig from parsed options.

    Raises:
        ConfigError: a value is out of range.
    """
    values = {spec.name: getattr(options, spec.name) for spec in fields(TrainConfig)}
    return TrainConfig(**{name: value for name, value in values.items() if value is not None})


def without_effect(config: TrainConfig) -> dict[str, str]:
    """The hyperparameters that change nothing beside the others → what they need."""
    needs = {
        "kl_weight": ("--model vae", config.model == "vae"),
        "layout": (f"--output-dim {WIDEST_MAP} or less", config.output_dim <= WIDEST_MAP),
        "patience": ("--fit-on split", config.fit_on == "split"),
        "augment_fade": ("--augment", config.augment > 0),
        "warps": ("--augment", config.augment > 0),
    }
    return {name: need for name, (need, is_met) in needs.items() if not is_met}


def fit_to_set(
    config: TrainConfig, options: argparse.Namespace, learned: int, validating: int
) -> TrainConfig:
    """Choose what neither the recipe nor the command line has chosen.

    Args:
        config: from ``options``.
        options: with None where the set decides.
        learned: number of images that ``config`` would learn.
        validating: number of images that would validate: a fifth, unless groups are kept together.
    """
    if options.start is None:
        roomy = config.hidden_dim >= PCA_CHANNELS * config.input_dim
        config = replace(config, start="pca" if roomy else "mean")
    if options.fit_on is None:
        fair = FEWEST_VALIDATING <= validating < learned
        config = replace(config, fit_on="split" if fair else "all")
    if config.fit_on == "all":
        learned += validating
    if options.batch_size is None:  # a 16th of the images, from 16 to 128
        power_of_2 = 2 ** int(math.log2(max(16, learned / 16)))
        config = replace(config, batch_size=min(128, power_of_2))
    if options.learning_rate is None:
        config = replace(config, learning_rate=RATE * math.sqrt(config.batch_size / 128))
    if options.passes is None and config.fit_on == "split":
        config = replace(config, passes=math.ceil(EPOCH_STEPS * config.batch_size / learned))
    if options.epochs is None:
        steps = math.ceil(learned * config.passes / config.batch_size)
        config = replace(config, epochs=max(1, min(MOST_EPOCHS, MOST_STEPS // steps)))
    return config
