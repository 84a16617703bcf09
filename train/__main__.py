"""``python -m train``: learn a dataset, judge the result, write a checkpoint."""

import argparse
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from train.checkpoint import Checkpoint, save_checkpoint
from train.config import TrainConfig, add_options, as_json, from_options
from train.data import Dataset, load_dataset
from train.errors import TrainError
from train.evaluate import Evaluation, evaluate
from train.loop import Epoch, choose_device, choose_precision, fit, keep_freed_memory, split_for
from train.model import Autoencoder

EXAMPLES = """
examples:
  python -m train                                     the full recipe on MNIST, into runs/mnist
  python -m train --epochs 20 --learning-rate 1e-3    a quick one
  python -m train --dataset digits --epochs 5         no download: scikit-learn's digits
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    try:
        config = from_options(options)
        dataset = load_dataset(config.dataset, options.data_dir)
        out = options.out or Path("runs") / config.dataset
        run(config, dataset, out)
    except TrainError as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line: one option for each hyperparameter, and where things are."""
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train the autoencoder and write a checkpoint.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("PINHOLE_DATA", "data")),
        help="where datasets lie, or are downloaded to (default: $PINHOLE_DATA or data)",
    )
    parser.add_argument("--out", type=Path, help="checkpoint folder (default: runs/DATASET)")
    return parser.parse_args(arguments)


def run(config: TrainConfig, dataset: Dataset, out: Path) -> None:
    """Train, evaluate and save; progress to stderr, the result to stdout."""
    keep_freed_memory()
    started, commit = time.monotonic(), git_commit()  # now: the checkout may move on meanwhile
    model, history = fit_with_progress(config, dataset)
    wall_s = time.monotonic() - started
    evaluation = evaluate(model.cpu().eval(), dataset)
    card = describe(config, dataset, history, evaluation)
    card["made_with"] |= {"git_commit": commit, "wall_s": round(wall_s, 1)}
    save_checkpoint(out, Checkpoint(model, card, evaluation.embeddings, evaluation.labels))
    for name, value in evaluation.metrics.items():
        print(f"{name:<16} {value:.4f}")
    print(f"checkpoint in {out}")


def fit_with_progress(config: TrainConfig, dataset: Dataset) -> tuple[Autoencoder, list[Epoch]]:
    """Train under a progress bar, with one line for each finished epoch."""
    history: list[Epoch] = []
    bar = Progress(
        TextColumn("epoch {task.description}"),
        BarColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        images = config.epochs * len(split_for(config, len(dataset.train_images))[0])
        task = bar.add_task(f"1/{config.epochs}", total=images)

        def report(epoch: Epoch) -> None:
            history.append(epoch)
            bar.console.print(
                f"epoch {epoch.epoch}: train mse {epoch.train_mse:.5f}"
                + ("" if epoch.val_mse is None else f", val mse {epoch.val_mse:.5f}")
            )
            bar.update(task, description=f"{min(epoch.epoch + 1, config.epochs)}/{config.epochs}")

        model = fit(config, dataset, lambda count: bar.advance(task, count), report)
    return model, history


class Rate(ProgressColumn):
    """Images per second, once known."""

    def render(self, task: Task) -> Text:
        """The rate over the last seconds, as rich measures it."""
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


def describe(
    config: TrainConfig,
    dataset: Dataset,
    history: list[Epoch],
    evaluation: Evaluation,
) -> dict[str, Any]:
    """The checkpoint's card: how the model came about and how good it is."""
    return {
        "config": as_json(config),
        "dataset": {"name": dataset.name, "sha256": dataset.checksum},
        "polarity": dataset.polarity,
        "metrics": evaluation.metrics,
        "calibration": {
            "mse_quantiles": evaluation.mse_quantiles.tolist(),
            "embedding_min": evaluation.embeddings.min(0).tolist(),
            "embedding_max": evaluation.embeddings.max(0).tolist(),
        },
        "made_with": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": str(choose_device(config.device)),
            "precision": choose_precision(config),
        },
        "history": [asdict(epoch) for epoch in history],
    }


def git_commit() -> str | None:
    """The checkout's commit; None outside a checkout."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
