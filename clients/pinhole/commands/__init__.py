"""The commands of ``pinhole``, a module each, and what they share.

A module has ``add(commands)``, which adds its subparser, and ``run(options)``, which returns the
exit code: 0, or one of those below.

A test runs the examples in every command's help. Each example is one line; a remark for the reader
follows it after three spaces or more.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

from pinhole.address import check_key, check_timeout, check_url
from pinhole.client import Client

T = TypeVar("T")

SOME_FAILED, USAGE, UNAVAILABLE = 1, 2, 3
URL = "http://127.0.0.1:8080"

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class UsageError(Exception):
    """The command line asks for something impossible; exit code 2."""


@contextmanager
def needing_modules(purpose: str, extra: str | None = None) -> Iterator[None]:
    """Turn an import that fails into one line that names the extra to install.

    Args:
        purpose: what the modules are needed for, e.g. ``--local``.
        extra: brings them; None takes the extra that is usual for the module.

    Raises:
        UsageError: a module is missing.
    """
    try:
        yield
    except ImportError as error:
        from serve.bundle.distribution import install_command, missing_module

        if extra:
            raise UsageError(f"{purpose} needs {error.name}: {install_command(extra)}") from error
        raise UsageError(missing_module(purpose, error)) from error


def add_command(
    commands: Commands,
    name: str,
    about: str,
    run: Callable[[argparse.Namespace], int],
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """Add a subcommand, with examples and notes in the epilog; returns its parser."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def add_service(
    command: argparse.ArgumentParser, timeout_s: float = 10, url: str | None = URL
) -> argparse._MutuallyExclusiveGroup:
    """Add the options that say which service to call, and how.

    Args:
        command: the parser.
        timeout_s: the default of --timeout-s.
        url: the service that is called where the user names none; None for no service.

    Returns:
        The group that --url is in, for options that exclude it: those that need no service.
    """
    either = command.add_mutually_exclusive_group()
    either.add_argument(
        "--url",
        type=worded(check_url),
        default=os.environ.get("PINHOLE_URL", url) if url else None,
        help=f"the service's address (default: {f'$PINHOLE_URL or {url}' if url else 'none'})",
    )
    command.add_argument(
        "--api-key",
        type=worded(check_key),
        default=os.environ.get("PINHOLE_API_KEY", ""),
        help="the service's API key, if it wants one (default: $PINHOLE_API_KEY)",
    )
    command.add_argument(
        "--timeout-s",
        type=worded(lambda text: check_timeout(float(text))),
        default=timeout_s,
        help="longest wait for an answer, in seconds (default: %(default)s)",
    )
    return either


def add_json(command: argparse.ArgumentParser, what: str) -> None:
    """Add the option that makes the output machine-readable."""
    command.add_argument("--json", action="store_true", help=f"print {what}")


def add_overwrite(command: argparse.ArgumentParser) -> None:
    """Add the option that lets a command replace what isn't an earlier result of its own."""
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace OUT even if it isn't an earlier result of this command",
    )


def connect(options: argparse.Namespace) -> Client:
    """A client of the service that add_service's options name."""
    return Client(options.url, options.api_key, options.timeout_s)


def positive(text: str) -> float:
    """Parse a number greater than 0, for argparse."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0; got {text}")
    return number


def worded(check: Callable[[str], T]) -> Callable[[str], T]:
    """A check for argparse, which shows the words of an ArgumentTypeError, not of a ValueError."""

    def check_argument(text: str) -> T:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return check_argument
