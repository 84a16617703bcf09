"""The ``pinhole`` command: embed folders, reconstruct images, decode embeddings, check health.

Results go to stdout, progress and errors to stderr. Exit codes: 0 all done, 1 some images failed,
2 wrong usage, 3 the service can't be reached or refuses to work.
"""

import argparse
import sys
from collections.abc import Callable

from pinhole.commands import (
    UNAVAILABLE,
    USAGE,
    UsageError,
    atlas,
    decode,
    embed,
    explore,
    health,
    reconstruct,
)
from pinhole.errors import PinholeError

COMMANDS = (health, embed, reconstruct, decode, explore, atlas)

EXAMPLES = """
examples:
  pinhole health
  pinhole embed scans/ --out scans.parquet
  pinhole reconstruct seven.png
  pinhole decode 0.5 -1.2 --out drawn.png      (-1e-3 needs a -- before the numbers)
  pinhole explore                              (opens a browser)
  pinhole atlas scans.parquet --out scans.html
  PINHOLE_URL=https://images.example.com PINHOLE_API_KEY=... pinhole health
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (UsageError, OSError) as error:
        print(f"pinhole: {error}", file=sys.stderr)
        return USAGE
    except PinholeError as error:
        print(f"pinhole: {error}", file=sys.stderr)
        return UNAVAILABLE


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="pinhole",
        description="Images through two numbers, and back: client of a pinhole service.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
