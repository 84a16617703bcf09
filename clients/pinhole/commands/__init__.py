"""The commands of ``pinhole``, a module each, and what they share.

A module has ``add(commands)``, which adds its subparser, and ``run(options)``, which returns the
exit code: 0, or one of those below.

The examples in a command's help are run by a test: one a line, what a reader should know about it
after three spaces or more.
"""

import argparse
import os
from collections.abc import Callable
from typing import TypeAlias

from pinhole.client import Client

SOME_FAILED, USAGE, UNAVAILABLE = 1, 2, 3

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class UsageError(Exception):
    """The command line asks for something impossible; exit code 2."""


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


def add_service(command: argparse.ArgumentParser, timeout_s: float = 10) -> None:
    """Add the options that say which service to call, and how."""
    command.add_argument(
        "--url",
        type=web_address,
        default=os.environ.get("PINHOLE_URL", "http://127.0.0.1:8080"),
        help="of the service (default: $PINHOLE_URL or http://127.0.0.1:8080)",
    )
    command.add_argument(
        "--api-key",
        type=ascii_only,
        default=os.environ.get("PINHOLE_API_KEY", ""),
        help="(default: $PINHOLE_API_KEY)",
    )
    command.add_argument(
        "--timeout-s",
        type=positive,
        default=timeout_s,
        help="longest wait for an answer (default: %(default)s)",
    )


def add_json(command: argparse.ArgumentParser, what: str) -> None:
    """Add the option that makes the output one for scripts."""
    command.add_argument("--json", action="store_true", help=f"print {what}")


def connect(options: argparse.Namespace) -> Client:
    """A client of the service that add_service's options name."""
    return Client(options.url, options.api_key, options.timeout_s)


def positive(text: str) -> float:
    """A number greater than 0, for argparse."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0; got {text}")
    return number


def ascii_only(text: str) -> str:
    """An API key, for argparse: what a header can carry."""
    if not text.isascii():
        raise argparse.ArgumentTypeError("an API key has ASCII characters only")
    return text


def web_address(text: str) -> str:
    """A URL, for argparse."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"must start with http:// or https://; got {text}")
    return text
