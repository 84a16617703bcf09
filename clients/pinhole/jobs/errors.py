"""What ends a job, and what makes only one of its rows fail."""

from dataclasses import dataclass


class JobError(Exception):
    """The job can't begin, or can't go on without losing data; the message is for the user."""


class HoldsNoImages(JobError):
    """A file was made for something else; among others, it is left out like a text."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one input has no embedding.

    Attributes:
        reason: a word by which failures are counted: ``Unreadable``, ``TooLarge``, or the service's
            name of the fault, e.g. ``InvalidImage``.
        message: goes into the row's column ``error``.
    """

    reason: str
    message: str


def unreadable(error: OSError) -> Fault:
    """The fault of an input that the operating system, or what lies at its URL, can't read.

    Text that isn't the system's is left out: it may show a URL with a password in it.
    """
    return Fault("Unreadable", f"can't be read: {error.strerror or type(error).__name__}")


def too_large(size: int, limit: int) -> Fault:
    """The fault of an input with more bytes than the limit."""
    return Fault("TooLarge", f"{size:,} bytes; the limit is {limit:,}")
