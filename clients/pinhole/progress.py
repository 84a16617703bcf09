"""The progress bar of a job: on stderr, and only if that is a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


class Rate(ProgressColumn):
    """Images per second, as soon as the rate is known."""

    def render(self, task: Task) -> Text:
        """The rate over the last seconds, as rich measures it."""
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


@contextmanager
def job_progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of ``total`` images; yields a function that advances it."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("embed", total=total)
        yield lambda count: bar.advance(task, count)
