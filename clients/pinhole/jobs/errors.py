"""What ends a job, and what ends only one of its rows."""

from dataclasses import dataclass


class JobError(Exception):
    """The job can't begin or can't go on without losing data; the message is for the user."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one input has no embedding.

    Attributes:
        reason: a word to count by, e.g. ``Unreadable`` or the service's own ``InvalidImage``.
        message: what goes into the row.
    """

    reason: str
    message: str


def unreadable(error: OSError) -> Fault:
    """An input that the system doesn't hand out."""
    return Fault("Unreadable", f"can't be read: {error.strerror or type(error).__name__}")


def too_large(size: int, limit: int) -> Fault:
    """An input over the limit."""
    return Fault("TooLarge", f"{size:,} bytes; the limit is {limit:,}")
