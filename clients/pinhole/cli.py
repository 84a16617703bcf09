"""The ``pinhole`` command: embed, reconstruct, decode and score images, or check the service.

Results go to stdout, progress and errors to stderr. Exit codes: 0 all done, 1 some images failed,
2 wrong usage, 3 the service can't be reached or refuses to work; 130 after Ctrl-C, and 141 where
nobody reads the output any more, as of programs that these end.
"""

import argparse
import os
import sys
from collections.abc import Callable
from importlib.metadata import version

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
    score,
)
from pinhole.errors import PinholeError

COMMANDS = (health, embed, reconstruct, decode, score, explore, atlas, completion)
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
  PINHOLE_URL=https://images.example.com PINHOLE_API_KEY=... pinhole health

exit codes: 0 all done, 1 some images failed, 2 wrong usage, 3 no service that works
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    try:
        try:
            return run(arguments)
        finally:
            sys.stdout.flush()  # a closed pipe shows here, not when the interpreter ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left
        return UNREAD
    except KeyboardInterrupt:
        return INTERRUPTED


def run(arguments: list[str] | None) -> int:
    """Run the command; what goes wrong becomes a line on stderr and an exit code."""
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
    """Say what went wrong; returns the exit code."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    print(f"pinhole: {text}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="pinhole",
        description="Images through two numbers, and back: client of a pinhole service.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {version('pinhole')}")
    top.set_defaults(parser=top)  # which completion describes
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
