"""``python -m train``: learn a dataset, judge the result, write a checkpoint and pictures."""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from serve.bundle.manifest import FRAMINGS
from train.card import describe, git_commit
from train.checkpoint import FILES, Checkpoint, check_replaceable, save_checkpoint
from train.config import RECIPES, TrainConfig, add_options, fit_to_set, from_options, without_effect
from train.data import add_data_dir, load_dataset
from train.dataset import Dataset
from train.device import keep_freed_memory
from train.errors import INTERRUPTED, CheckpointError, ConfigError, TrainError
from train.evaluate import Evaluation, judge, score
from train.folder import SPLITS
from train.loop import Trainer, split_for
from train.pca import fit_pca
from train.pictures import draw_all
from train.progress import lay_out_with_progress, train_with_progress
from train.run import SETTINGS, STATE, RunFolder, newest_run, read_settings
from train.verdict import verdict

EXAMPLES = """
examples:
  python -m train                                     the best recipe on MNIST, into runs/mnist
  python -m train --recipe seed                       the published recipe
  python -m train --resume                            continue the newest run in runs/, with its own
                                                      settings, after Ctrl-C or a crash
  python -m train --dataset digits --epochs 5         scikit-learn's digits: nothing to download
  python -m train --dataset folder --data-dir my_images --image-size 64
                                                      your own images, into runs/folder
"""
# The options that only a folder of images has, and their defaults.
FOLDER_OPTIONS = {
    "framing": Dataset.framing,
    "skip_unreadable": False,
    "split_by": Dataset.split_by,
}
SHORT_OF_MEMORY = (
    "not enough memory: fewer images, or a smaller --image-size, --hidden-dim or --batch-size"
)
RUNS = Path("runs")  # where a run's folder lies, if --out names no other


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    try:
        options = parse(arguments)
        config = from_options(options)
        out = options.out or RUNS / config.dataset
        check_apart(out, options)
        check_used(options)
        check_replaceable(out / "checkpoint", FILES)
        RunFolder(out).check(options.resume)
        dataset = load_dataset(
            config.dataset,
            options.data_dir,
            options.input_dim,
            config.image_size,
            options.framing,
            options.skip_unreadable,
            options.split_by,
        )
        if options.input_dim is None:  # then the dataset decides
            config = replace(config, input_dim=dataset.train_images.shape[1])
        config = fit_to_set(config, options, *map(len, split_for(config, dataset)))
        if not options.resume:
            check_effective(config, options.recipe)
        return run(config, dataset, out, options)
    except (TrainError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate" not in str(error):
            raise  # torch has no class of its own for a host without memory
        print(f"train: {SHORT_OF_MEMORY}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train: stopped", file=sys.stderr)
        return INTERRUPTED


def check_apart(out: Path, options: argparse.Namespace) -> None:
    """Raise ConfigError if the run's own pictures would be among those that it learns."""
    if options.dataset == "folder" and out.resolve().is_relative_to(options.data_dir.resolve()):
        raise ConfigError(
            f"{out} lies in the folder of images, {options.data_dir}, so the run's own pictures "
            "would be learned: name another --out"
        )


def check_used(options: argparse.Namespace) -> None:
    """Raise ConfigError if an option of folders would have no effect on another dataset."""
    for name, usual in FOLDER_OPTIONS.items():
        if options.dataset != "folder" and getattr(options, name) != usual:
            raise ConfigError(f"--{name.replace('_', '-')} needs --dataset folder")


def check_effective(config: TrainConfig, recipe: str) -> None:
    """Raise ConfigError if a hyperparameter that isn't the recipe's own changes nothing."""
    usual = asdict(TrainConfig()) | RECIPES[recipe]
    for name, need in without_effect(config).items():
        if getattr(config, name) != usual[name]:
            raise ConfigError(f"--{name.replace('_', '-')} needs {need}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line: an option for each hyperparameter, and where files are.

    Raises:
        ConfigError: there is no such recipe, or the run to resume had another.
        CheckpointError: there is no run to resume, or its settings are damaged.
    """
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train the autoencoder and write a checkpoint.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    asked = ask_first(arguments)
    earlier = settings_of_resumed(asked) if asked.resume else {}
    dataset = asked.dataset or earlier.get("dataset")
    usual = "pictures" if dataset == "folder" else "best"
    recipe = asked.recipe or earlier.get("recipe", usual)
    parser.add_argument(
        "--recipe",
        help=f"set of defaults: {' or '.join(RECIPES)} (default: pictures for a folder, else best)",
    )
    add_options(parser, recipe)
    add_places(parser)
    add_folder_options(parser)
    parser.set_defaults(**{**earlier, "recipe": recipe})
    options = parser.parse_args(arguments)
    for name in ("recipe", "framing", "split_by"):  # TrainConfig's are compared by restore
        if (then := earlier.get(name, getattr(options, name))) != getattr(options, name):
            raise ConfigError(f"the run to resume had {name} {then}, not {getattr(options, name)}")
    return options


def ask_first(arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command line that decide the defaults of others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--dataset")
    parser.add_argument("--recipe")
    parser.add_argument("--out", type=Path)
    return parser.parse_known_args(arguments)[0]


def add_places(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options that say where files are read and written."""
    add_data_dir(
        parser,
        "folder that datasets are read from or downloaded to; with --dataset folder, the folder of "
        "images",
    )
    parser.add_argument("--out", type=Path, help="run folder to write (default: runs/DATASET)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out (default: the newest in runs/) with its own settings",
    )


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options that only ``--dataset folder`` has."""
    parser.add_argument(
        "--framing",
        choices=FRAMINGS,
        default=FOLDER_OPTIONS["framing"],
        help="with --dataset folder: how files are cut to a square, in serving too; ink finds and "
        "centres what is written on a page (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="with --dataset folder: leave out broken files instead of stopping",
    )
    parser.add_argument(
        "--split-by",
        choices=SPLITS,
        default=FOLDER_OPTIONS["split_by"],
        help="with --dataset folder: what isn't torn apart into training and test images, each "
        "image, each folder, or each prefix: files whose names differ in their last number only, "
        "as in a burst (default: %(default)s)",
    )


def settings_of_resumed(asked: argparse.Namespace) -> dict[str, Any]:
    """The options of the run that ``--resume`` asks for, ``out`` among them.

    Raises:
        CheckpointError: there is no such run, or its settings are damaged.
    """
    named = asked.out or (RUNS / asked.dataset if asked.dataset else newest_run(RUNS))
    if named is None:
        raise CheckpointError(f"nothing to resume: no run in {RUNS} has saved its state")
    # A hyperparameter that the run didn't know yet was at its default.
    settings = asdict(TrainConfig()) | read_settings(named)
    for name, value in settings.items():
        if not is_setting(name, value):
            raise CheckpointError(f"{named / SETTINGS} is damaged: {name} is {value!r}")
    return settings | {"out": named}


def is_setting(name: str, value: Any) -> bool:
    """Whether a run writes such a value down; TrainConfig checks the ranges of numbers."""
    choices = {"recipe": tuple(RECIPES), "framing": FRAMINGS, "split_by": SPLITS}
    if name in choices:
        return value in choices[name]
    usual = asdict(TrainConfig()) | {"skip_unreadable": False, "data_dir": ""}
    wanted = type(usual.get(name, value))
    return type(value) is wanted or (wanted is float and type(value) is int)


def run(config: TrainConfig, dataset: Dataset, out: Path, options: argparse.Namespace) -> int:
    """Train, evaluate and save; progress goes to stderr, the result to stdout."""
    keep_freed_memory()
    commit = git_commit()  # asked before training: the checkout may change during a long run
    told = {name: getattr(options, name) for name in ("recipe", "framing", "skip_unreadable")}
    told |= {"split_by": options.split_by, "data_dir": str(options.data_dir.absolute())}
    trainer = Trainer(config, dataset)
    try:
        with RunFolder(out) as folder:
            fit(trainer, folder, told, options.resume)
            save(trainer, dataset, folder, commit)
    except KeyboardInterrupt:
        done = f"{len(trainer.history)} of {config.epochs} epochs"
        print(f"train: stopped after {done}; {way_on(out)}", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        raise TrainError(f"{error}, at work in {out}; {way_on(out)}") from error
    return 0


def way_on(out: Path) -> str:
    """What is left of a run that ended too early."""
    kept = (out / STATE).exists()
    return "--resume continues from there" if kept else "there is nothing to resume"


def fit(trainer: Trainer, folder: RunFolder, told: dict[str, Any], resume: bool) -> None:
    """Train to the end under progress bars, and keep the run folder up to date.

    Args:
        trainer: fresh.
        folder: entered.
        told: the options beside the hyperparameters that a resumed run takes up.
        resume: whether to go on where the run in ``folder`` stopped.
    """
    folder.check(resume)  # again, under the lock: another run may have ended in the meantime
    if resume:
        folder.resume(trainer)
    else:
        folder.start_afresh()
    folder.keep_settings(told | asdict(trainer.config))
    if trainer.lacks_map:
        lay_out_with_progress(trainer)
        folder.keep(trainer)
    train_with_progress(trainer, folder)
    folder.save_state()


def save(trainer: Trainer, dataset: Dataset, folder: RunFolder, commit: str | None) -> None:
    """Write the checkpoint and pictures of the trained model, and print what it is worth.

    The checkpoint is saved before the model is judged, and again with the judgement, so that
    whatever goes wrong in between costs no training.
    """
    trainer.take_best()
    # torch's type hints leave memory_format out of Module.to.
    trainer.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model = trainer.model.cpu().eval()
    found = score(model, dataset)
    write(trainer, dataset, found, folder, commit)
    pca = fit_pca(dataset.train_images, found.embeddings.shape[1])
    found = replace(found, metrics=found.metrics | judge(model, dataset, found, pca))
    write(trainer, dataset, found, folder, commit)
    for name, value in found.metrics.items():
        print(f"{name:<16} {value:.4f}")
    print(*verdict(trainer, found, pca, dataset.test_images), sep="\n")
    checkpoint, pictures = folder.folder / "checkpoint", folder.folder / "pictures"
    draw_all(pictures, model, dataset, found.embeddings, trainer.history)
    print(f"checkpoint in {checkpoint}, pictures in {pictures}")


def write(
    trainer: Trainer, dataset: Dataset, found: Evaluation, folder: RunFolder, commit: str | None
) -> None:
    """Write the checkpoint with what is known of the model so far."""
    folder.check_own()
    card = describe(trainer, dataset, found, commit)
    checkpoint = Checkpoint(trainer.model, card, found.embeddings, found.labels)
    save_checkpoint(folder.folder / "checkpoint", checkpoint)


if __name__ == "__main__":
    sys.exit(main())
