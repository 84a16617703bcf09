"""``pinhole decode``: draw the image of an embedding."""

import argparse
import sys
from pathlib import Path

from pinhole.commands import Commands, UsageError, add_command, add_service, connect
from pinhole.errors import BadRequest

STDOUT = Path("-")

EPILOG = """
examples:
  pinhole decode 0.7 -1.9 --out drawn.png
  pinhole decode 0.7 -1.9 --out - > drawn.png
  pinhole decode --out drawn.png -- -1e-3 0.5      -1e-3 would pass for an option
"""


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "decode", "draw the image of an embedding", run, EPILOG)
    add_service(command)
    command.add_argument("embedding", type=float, nargs="+", metavar="NUMBER")
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE.png", help="a file, or - for stdout"
    )


def run(options: argparse.Namespace) -> int:
    """Write the picture; returns the exit code."""
    with connect(options) as client:
        try:
            picture = client.decode_png(options.embedding)
        except BadRequest as error:
            raise UsageError(str(error)) from error
    if options.out == STDOUT:
        sys.stdout.buffer.write(picture)
    else:
        options.out.write_bytes(picture)
        print(options.out)
    return 0
