"""``python -m train``: learn a dataset, judge the result, write a checkpoint and pictures."""

import argparse
import os
import platform
import subprocess
import sys
from dataclasses import asdict, replace
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

from train.checkpoint import MARKER, Checkpoint, check_replaceable, save_checkpoint
from train.config import RECIPES, TrainConfig, add_options, from_options
from train.data import Dataset, load_dataset
from train.device import choose_device, choose_precision, keep_freed_memory
from train.errors import TrainError
from train.evaluate import Evaluation, evaluate
from train.loop import Epoch, Trainer
from train.pictures import draw_all
from train.run import RunFolder

EXAMPLES = """
examples:
  python -m train                                     the best recipe on MNIST, into runs/mnist
  python -m train --recipe seed                       the published recipe
  python -m train --resume                            go on where Ctrl-C or a crash ended it
  python -m train --dataset digits --epochs 5         no download: scikit-learn's digits
  python -m train --dataset folder --data-dir my_images --image-size 64
"""
INTERRUPTED = 130  # the shell's exit code for Ctrl-C


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    try:
        options = parse(arguments)
        config = from_options(options)
        dataset = load_dataset(
            config.dataset,
            options.data_dir,
            options.input_dim,
            options.image_size,
            options.skip_unreadable,
        )
        channels, size = dataset.train_images.shape[1:3]
        if config.dataset == "folder":  # the images decide what was not asked for
            config = replace(config, input_dim=channels, image_size=size)
        return run(config, dataset, options.out or Path("runs") / config.dataset, options.resume)
    except (TrainError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train: stopped", file=sys.stderr)
        return INTERRUPTED


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line: one option for each hyperparameter, and where things are.

    Raises:
        ConfigError: there is no such recipe.
    """
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train the autoencoder and write a checkpoint.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    recipe_names = " or ".join(RECIPES)
    parser.add_argument(
        "--recipe", default="best", help=f"defaults to start from: {recipe_names} (default: best)"
    )
    recipe = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    recipe.add_argument("--recipe", default="best")
    add_options(parser, recipe.parse_known_args(arguments)[0].recipe)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("PINHOLE_DATA", "data")),
        help="where datasets lie, or are downloaded to (default: $PINHOLE_DATA or data)",
    )
    parser.add_argument("--out", type=Path, help="run folder (default: runs/DATASET)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out broken files of a folder"
    )
    return parser.parse_args(arguments)


def run(config: TrainConfig, dataset: Dataset, out: Path, resume: bool) -> int:
    """Train, evaluate and save; progress to stderr, the result to stdout."""
    check_replaceable(out / "checkpoint", MARKER)
    keep_freed_memory()
    commit = git_commit()  # now: the checkout may move on meanwhile
    trainer = Trainer(config, dataset)
    with RunFolder(out) as folder:
        if resume:
            folder.resume(trainer)
        else:
            folder.start_afresh()
        try:
            lay_out_with_progress(trainer)
            train_with_progress(trainer, folder)
        except KeyboardInterrupt:
            done = len(trainer.history)
            hint = "--resume goes on from there" if done else "there is nothing to resume"
            print(f"train: stopped after {done} of {config.epochs} epochs; {hint}", file=sys.stderr)
            return INTERRUPTED
    model = trainer.model.to(memory_format=torch.contiguous_format).cpu().eval()
    evaluation = evaluate(model, dataset)
    card = describe(config, dataset, trainer.history, evaluation)
    card["made_with"] |= {"git_commit": commit, "wall_s": round(trainer.seconds, 1)}
    checkpoint = Checkpoint(model, card, evaluation.embeddings, evaluation.labels)
    save_checkpoint(out / "checkpoint", checkpoint)
    draw_all(out / "pictures", model, dataset, evaluation.embeddings, trainer.history)
    for name, value in evaluation.metrics.items():
        print(f"{name:<16} {value:.4f}")
    print(f"checkpoint in {out / 'checkpoint'}, pictures in {out / 'pictures'}")
    return 0


def lay_out_with_progress(trainer: Trainer) -> None:
    """Draw the map that training starts from, if one is wanted."""
    if not trainer.config.layout or trainer.history:
        return
    columns = TextColumn("t-SNE map of the images"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0)
        trainer.lay_out(lambda share: bar.update(task, completed=share))


def train_with_progress(trainer: Trainer, folder: RunFolder) -> None:
    """Train under a progress bar, with one line for each finished epoch."""
    epochs = trainer.config.epochs
    bar = Progress(
        TextColumn("epoch {task.description}"),
        BarColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task(
            "",
            total=epochs * trainer.images_per_epoch,
            completed=len(trainer.history) * trainer.images_per_epoch,
        )
        while len(trainer.history) < epochs:
            bar.update(task, description=f"{len(trainer.history) + 1}/{epochs}")
            epoch = trainer.run_epoch(lambda count: bar.advance(task, count))
            folder.record(epoch, trainer)
            watched = "" if epoch.val_mse is None else f", val mse {epoch.val_mse:.5f}"
            bar.console.print(f"epoch {epoch.epoch}: train mse {epoch.train_mse:.5f}{watched}")


class Rate(ProgressColumn):
    """Images per second, once known."""

    def render(self, task: Task) -> Text:
        """The rate over the last seconds, as rich measures it."""
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


def describe(
    config: TrainConfig, dataset: Dataset, history: list[Epoch], evaluation: Evaluation
) -> dict[str, Any]:
    """The checkpoint's card: how the model came about and how good it is."""
    return {
        "config": asdict(config),
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
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
