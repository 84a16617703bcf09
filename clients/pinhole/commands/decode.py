"""``pinhole decode``: draw the image of an embedding."""

import argparse
import sys

from pinhole.commands import (
    Commands,
    UsageError,
    add_command,
    add_overwrite,
    add_service,
    connect,
)
from pinhole.commands.png import has_mark, marked, write_png
from pinhole.errors import BadRequest
from pinhole.outputs import check_replaceable, local_path

STDOUT = "-"

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
    command.add_argument("--out", required=True, metavar="FILE.png", help="a file, or - for stdout")
    add_overwrite(command)


def run(options: argparse.Namespace) -> int:
    """Write the picture; returns the exit code."""
    out = local_path(options.out)
    if options.out != STDOUT:
        check_replaceable(out, has_mark, options.overwrite)
    with connect(options) as client:
        try:
            picture = client.decode_png(options.embedding)
        except BadRequest as error:
            raise UsageError(str(error)) from error
    if options.out == STDOUT:
        sys.stdout.buffer.write(marked(picture))
    else:
        write_png(out, picture)
        print(out)
    return 0
