"""``pinhole reconstruct``: write what the model remembers of each image."""

import argparse
import sys
from pathlib import Path

from pinhole.commands import SOME_FAILED, Commands, UsageError, add_command, add_service, connect
from pinhole.errors import BadRequest


def add(commands: Commands) -> None:
    """Add the command."""
    about = "write NAME.reconstruction.png beside each image"
    command = add_command(commands, "reconstruct", about, run)
    add_service(command)
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")


def run(options: argparse.Namespace) -> int:
    """Write the pictures, and tell how good each is."""
    outputs = {path: path.with_name(f"{path.stem}.reconstruction.png") for path in options.images}
    if len(set(outputs.values())) < len(outputs):
        raise UsageError("two of the images would be written to the same NAME.reconstruction.png")
    failed = 0
    with connect(options) as client:
        for path, out in outputs.items():
            try:
                answer = client.reconstruct(path)
            except (BadRequest, OSError) as error:
                failed += 1
                print(f"{path}: {error}", file=sys.stderr)
                continue
            out.write_bytes(answer.png)
            verdict = ", an outlier" if answer.outlier else ""
            print(f"{out}: mse {answer.mse:.4f}, percentile {answer.percentile:.0f}{verdict}")
    return SOME_FAILED if failed else 0
