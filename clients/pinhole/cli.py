"""The ``pinhole`` command: embed, reconstruct, decode and score images, or check the service.

Results go to stdout, progress and errors to stderr. Exit codes: 0 all done, 1 some images failed,
2 wrong usage, 3 the service can't be reached or refuses to work, 130 after Ctrl-C, 141 if the
reader of the output has gone (the shells' codes for SIGINT and SIGPIPE).
"""

import argparse
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import pinhole
from pinhole.commands import (
    UNAVAILABLE,
    USAGE,
    UsageError,
    atlas,
    completion,
    decode,
    embed,
    explore,
    health,
    reconstruct,
    report,
    score,
)
from pinhole.errors import PinholeError

COMMANDS = (health, embed, reconstruct, decode, score, explore, atlas, report, completion)
INTERRUPTED, UNREAD = 130, 141  # 128 + SIGINT, 128 + SIGPIPE

EXAMPLES = """
examples:
  pinhole health
  pinhole embed scans/ --out scans.parquet
  pinhole reconstruct seven.png
  pinhole decode 0.5 -1.2 --out drawn.png
  pinhole score scans/*.png
  pinhole explore
  pinhole atlas scans.parquet --out scans.html
  pinhole report scans.parquet --out report.html
  PINHOLE_URL=https://images.example.com PINHOLE_API_KEY=... pinhole health

exit codes: 0 all done, 1 some images failed, 2 wrong usage, 3 no service that works
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # The shell has closed that output.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # As stderr does: names may have any letter.
    try:
        try:
            return run(arguments)
        finally:
            # A closed pipe has to raise here, not when the interpreter flushes stdout at its end.
            sys.stdout.flush()
    except OSError as error:
        # What is still buffered goes to /dev/null, or the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD if isinstance(error, BrokenPipeError) else complain(error, USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED


def run(arguments: list[str] | None) -> int:
    """Run the command; an error becomes a line on stderr and an exit code."""
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except BrokenPipeError:
        raise
    except (UsageError, OSError) as error:
        return complain(error, USAGE)
    except PinholeError as error:
        return complain(error, UNAVAILABLE)


def complain(error: Exception, code: int) -> int:
    """Print an error to stderr; returns the exit code."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    with suppress(OSError):  # Where stderr's disk is full, the exit code still tells.
        print(f"pinhole: {text}", file=sys.stderr)
    return code


class PrintVersion(argparse.Action):
    """Prints the version, which is read from the installed package only if it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print the version, and exit."""
        print(parser.prog, pinhole.__version__)
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    top = argparse.ArgumentParser(
        prog="pinhole",
        description="Images through two numbers, and back: client of a pinhole service.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=PrintVersion, nargs=0, help="show the version and exit")
    top.set_defaults(parser=top)  # ``pinhole completion`` describes this parser to the shell.
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top
