"""Training under progress bars, which go to stderr."""

import sys

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

from train.loop import Trainer
from train.run import RunFolder


class Rate(ProgressColumn):
    """Images per second; blank until rich has measured a rate."""

    def render(self, task: Task) -> Text:
        """The rate over the last seconds, as rich measures it."""
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


def lay_out_with_progress(trainer: Trainer) -> None:
    """Draw the map that training starts from."""
    columns = TextColumn("t-SNE map of the images"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0)
        trainer.lay_out(lambda share: bar.update(task, completed=share))


def train_with_progress(trainer: Trainer, folder: RunFolder) -> None:
    """Train to the end, and print a line after each epoch.

    Args:
        trainer: fresh or resumed.
        folder: where each epoch is recorded.
    """
    epochs, images = trainer.config.epochs, trainer.images_per_epoch
    columns = TextColumn("epoch {task.description}"), BarColumn(), Rate(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        done = len(trainer.history)
        task = bar.add_task("", total=epochs * images, completed=done * images)
        while not trainer.finished:
            bar.update(task, description=f"{len(trainer.history) + 1}/{epochs}")
            epoch = trainer.run_epoch(lambda count: bar.advance(task, count))
            folder.record(epoch, trainer)
            val = "" if epoch.val_mse is None else f", val mse {epoch.val_mse:.5f}"
            bar.console.print(f"epoch {epoch.epoch}: train mse {epoch.train_mse:.5f}{val}")
    if trainer.ended_early:
        print(
            f"ended after {len(trainer.history)} of {epochs} epochs: no lower validation error for "
            f"{trainer.config.patience} epochs (--patience)",
            file=sys.stderr,
        )
