"""What a card says about how its model was made."""

import shlex
from dataclasses import replace

import numpy as np
import pytest

from train.__main__ import parse
from train.card import command, embedding_range
from train.config import RECIPES, TrainConfig, from_options
from train.digits import load_digits


@pytest.mark.parametrize("recipe", ["seed", "best"])
def test_its_command_makes_the_same_configuration(recipe: str) -> None:
    """Whatever differs from the recipe is an option of the command."""
    config = TrainConfig(
        **RECIPES[recipe] | {"seed": 7, "fit_on": "all", "model": "vae", "kl_weight": 0.01}
    )
    words = shlex.split(command(config, load_digits()))

    assert words[:5] == ["python", "-m", "train", "--recipe", recipe]
    assert from_options(parse(words[3:])) == config


def test_its_command_reads_a_folder_in_the_same_way() -> None:
    """How files were cut to a square, split and left out are options, too."""
    config = TrainConfig(dataset="folder", image_size=64)
    dataset = replace(load_digits(), framing="crop", split_by="prefix", left_out=1)

    options = parse(shlex.split(command(config, dataset))[3:])

    assert (options.framing, options.split_by, options.image_size) == ("crop", "prefix", 64)
    assert options.skip_unreadable
    usual = command(config, replace(dataset, framing="pad", left_out=0))
    assert "--framing" not in usual
    assert "--skip-unreadable" not in usual
    assert "--input-dim 1" in usual  # its default is what the images have


@pytest.mark.parametrize(("images", "width"), [(10_000, 2), (360, 32), (10, 64)])
def test_few_images_of_the_known_kind_lie_outside_its_range(images: int, width: int) -> None:
    """Of new images at most 4 in 100, however few images are known and long the embedding is."""
    known, new = np.split(np.random.default_rng(0).normal(size=(2_000 + images, width)), [images])
    least, greatest = embedding_range(known.astype(np.float32))

    outside = ((new < least) | (new > greatest)).any(axis=1)
    assert outside.mean() <= 0.04
    assert (known.max(0) < greatest).all()
    assert (greatest <= known.max(0) + np.ptp(known, 0) * 2 * width / images).all()
