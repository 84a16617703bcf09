"""``python -m train``: learn a dataset, judge the result, write a checkpoint and pictures."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from serve.bundle.manifest import FRAMINGS
from train.card import describe, git_commit
from train.checkpoint import FILES, Checkpoint, check_replaceable, save_checkpoint
from train.config import RECIPES, TrainConfig, add_options, from_options
from train.data import load_dataset
from train.dataset import Dataset
from train.device import keep_freed_memory
from train.errors import TrainError
from train.evaluate import evaluate
from train.loop import Trainer
from train.pictures import draw_all
from train.progress import lay_out_with_progress, train_with_progress
from train.run import RunFolder

EXAMPLES = """
examples:
  python -m train                                     the best recipe on MNIST, into runs/mnist
  python -m train --recipe seed                       the published recipe
  python -m train --resume                            continue the run that Ctrl-C or a crash ended
  python -m train --dataset digits --epochs 5         scikit-learn's digits: nothing to download
  python -m train --dataset folder --data-dir my_images --image-size 64
                                                      your own images, into runs/folder
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
            config.image_size,
            options.framing,
            options.skip_unreadable,
        )
        if options.input_dim is None:  # then the dataset decides
            config = replace(config, input_dim=dataset.train_images.shape[1])
        return run(config, dataset, options.out or Path("runs") / config.dataset, options.resume)
    except (TrainError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train: stopped", file=sys.stderr)
        return INTERRUPTED


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line: an option for each hyperparameter, and where files are.

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
        "--recipe", default="best", help=f"set of defaults: {recipe_names} (default: best)"
    )
    # The recipe decides the defaults of the other options, so it is parsed on its own first.
    recipe = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    recipe.add_argument("--recipe", default="best")
    add_options(parser, recipe.parse_known_args(arguments)[0].recipe)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("PINHOLE_DATA", "data")),
        help="folder that datasets are read from or downloaded to; with --dataset folder, the "
        "folder of images (default: $PINHOLE_DATA or data)",
    )
    parser.add_argument("--out", type=Path, help="run folder to write (default: runs/DATASET)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument(
        "--framing",
        choices=FRAMINGS,
        default="pad",
        help="with --dataset folder: how files are cut to a square, in serving too; ink finds and "
        "centres what is written on a page (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="with --dataset folder: leave out broken files instead of stopping",
    )
    return parser.parse_args(arguments)


def run(config: TrainConfig, dataset: Dataset, out: Path, resume: bool) -> int:
    """Train, evaluate and save; progress goes to stderr, the result to stdout."""
    check_replaceable(out / "checkpoint", FILES)
    if not resume:
        RunFolder(out).check_unused()
    keep_freed_memory()
    commit = git_commit()  # asked before training: the checkout may change during a long run
    trainer = Trainer(config, dataset)
    try:
        fit(trainer, out, resume)
    except KeyboardInterrupt:
        done = len(trainer.history)
        hint = "--resume continues from there" if done else "there is nothing to resume"
        print(f"train: stopped after {done} of {config.epochs} epochs; {hint}", file=sys.stderr)
        return INTERRUPTED
    save(trainer, dataset, out, commit)
    return 0


def fit(trainer: Trainer, out: Path, resume: bool) -> None:
    """Train to the last epoch under progress bars, and keep the run folder ``out`` up to date."""
    with RunFolder(out) as folder:
        if resume:
            folder.resume(trainer)
        else:
            folder.start_afresh()
        lay_out_with_progress(trainer)
        train_with_progress(trainer, folder)


def save(trainer: Trainer, dataset: Dataset, out: Path, commit: str | None) -> None:
    """Evaluate the trained model, write its checkpoint and pictures, and print its metrics."""
    # torch's type hints leave memory_format out of Module.to.
    trainer.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model = trainer.model.cpu().eval()
    evaluation = evaluate(model, dataset)
    card = describe(trainer, dataset, evaluation, commit)
    checkpoint = Checkpoint(model, card, evaluation.embeddings, evaluation.labels)
    save_checkpoint(out / "checkpoint", checkpoint)
    draw_all(out / "pictures", model, dataset, evaluation.embeddings, trainer.history)
    for name, value in evaluation.metrics.items():
        print(f"{name:<16} {value:.4f}")
    print(f"checkpoint in {out / 'checkpoint'}, pictures in {out / 'pictures'}")


if __name__ == "__main__":
    sys.exit(main())
