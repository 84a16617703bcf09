"""card.json: how a model came about and how good it is."""

import platform
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from train.config import RECIPES, TrainConfig, without_effect
from train.dataset import Dataset
from train.device import choose_device, choose_precision
from train.evaluate import Evaluation
from train.loop import Trainer


def describe(
    trainer: Trainer, dataset: Dataset, evaluation: Evaluation, commit: str | None
) -> dict[str, Any]:
    """The card of a finished run.

    Args:
        trainer: after its last epoch.
        dataset: the images that the trainer learned and ``evaluation`` measured.
        evaluation: what ``train.evaluate`` found on the test images.
        commit: the git commit that the run, or its last restart, started from; None outside a
            checkout.
    """
    config = trainer.config
    (_, epochs), *longer = trainer.lengths
    least, greatest = embedding_range(evaluation.embeddings)
    return {
        "config": asdict(config),
        "dataset": {
            "name": dataset.name,
            "sha256": dataset.checksum,
            "classes": list(dataset.classes),
        },
        "polarity": dataset.polarity,
        "framing": dataset.framing,
        "split_by": dataset.split_by,
        "metrics": evaluation.metrics,
        "calibration": {
            "mse_quantiles": evaluation.mse_quantiles.tolist(),
            "relative_quantiles": evaluation.relative_quantiles.tolist(),
            "embedding_min": least.tolist(),
            "embedding_max": greatest.tolist(),
        },
        "made_with": {
            "command": command(replace(config, epochs=epochs), dataset)
            + "".join(f"; after {done} epochs --resume --epochs {more}" for done, more in longer),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": str(choose_device(config.device)),
            "precision": choose_precision(config),
            "git_commit": commit,
            "wall_s": round(trainer.seconds, 1),
        },
        "history": [asdict(epoch) for epoch in trainer.history],
    }


def embedding_range(embeddings: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What the numbers of an image of the known kind lie between: two times float32[D].

    Args:
        embeddings: float32[N, D], of N held-out images.

    By chance, one of another image's D numbers lies outside the range of N images' as often as
    2 D times in N + 1. So the range is widened by D / N of itself at both ends, which is little
    where many images are known and the embedding is short.
    """
    least, greatest = embeddings.min(0), embeddings.max(0)
    margin = (greatest - least) * (embeddings.shape[1] / len(embeddings))
    return least - margin, greatest + margin


def command(config: TrainConfig, dataset: Dataset) -> str:
    """The shortest command that trains so: a recipe and what differs from it.

    It names no folder: where the images lie is everybody's own affair.
    """
    differences = {}
    for recipe, values in RECIPES.items():
        defaults = asdict(TrainConfig()) | values
        differences[recipe] = {
            name: value for name, value in asdict(config).items() if value != defaults[name]
        }
    recipe = min(differences, key=lambda name: len(differences[name]))
    useless = without_effect(config)
    chosen = {name: each for name, each in differences[recipe].items() if name not in useless}
    if config.dataset == "folder":
        chosen["input_dim"] = config.input_dim  # whose default is what the images have
        for name, usual in (("framing", Dataset.framing), ("split_by", Dataset.split_by)):
            if (value := getattr(dataset, name)) != usual:
                chosen[name] = value
    options = [f"--{name.replace('_', '-')} {value}" for name, value in chosen.items()]
    if dataset.left_out:
        options.append("--skip-unreadable")
    return " ".join(["python -m train --recipe", recipe, *options])


def git_commit() -> str | None:
    """The checkout's commit, with ``-dirty`` if files have changed; None outside a checkout."""
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
