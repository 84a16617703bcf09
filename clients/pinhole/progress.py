"""The progress of a job on stderr: a bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_S = 30.0  # The pause between two lines.


class Rate(ProgressColumn):
    """Images per second, as soon as the rate is known."""

    def render(self, task: Task) -> Text:
        """The rate over the last seconds, as rich measures it."""
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


class Lines:
    """Progress for a log: a line every 30 s, as long as images are finished."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._told: tuple[float, int] | None = None  # when, and how many were done then

    def advance(self, count: int) -> None:
        """Note finished images; those of earlier runs come first, and don't count for the rate."""
        self._done += count
        now = time.monotonic()
        if self._told is None:
            self._told = now, self._done
        seconds, images = now - self._told[0], self._done - self._told[1]
        if seconds < LINE_S or not images:
            return
        self._told = now, self._done
        left = timedelta(seconds=round((self._total - self._done) * seconds / images))
        print(
            f"pinhole: {self._done:,} of {self._total:,} images, {images / seconds:,.0f} images/s, "
            f"{left} left",
            file=sys.stderr,
        )


@contextmanager
def job_progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of ``total`` images; yields a function that advances it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(total).advance
        return
    columns = (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("embed", total=total)
        yield lambda count: bar.advance(task, count)
