"""``pinhole decode``: draw the image of an embedding."""

import argparse
from pathlib import Path

from pinhole.commands import Commands, UsageError, add_command, add_service, connect
from pinhole.errors import BadRequest


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "decode", "draw the image of an embedding", run)
    add_service(command)
    command.add_argument("embedding", type=float, nargs="+", metavar="NUMBER")
    command.add_argument("--out", type=Path, required=True, metavar="FILE.png")


def run(options: argparse.Namespace) -> int:
    """Write the picture."""
    with connect(options) as client:
        try:
            options.out.write_bytes(client.decode_png([options.embedding]))
        except BadRequest as error:
            raise UsageError(str(error)) from error
    print(options.out)
    return 0
