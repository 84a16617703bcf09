"""``pinhole score``: how well the model knows each image."""

import argparse
from pathlib import Path

from pinhole.answers import Reconstruction
from pinhole.commands import SOME_FAILED, Commands, add_command, add_json, add_service, connect
from pinhole.commands.judging import judge, tell, tell_fault

EPILOG = """
mse is the mean squared error per pixel of what the model remembers, pixels in [0, 1]; percentile
the share of known images, in percent, that it remembers better; an outlier looks like none of them.

examples:
  pinhole score seven.png
  pinhole score --json scans/*.png > scores.jsonl
  pinhole score scans/*.png | sort -k3      by mse

--json: a line for each image, in order, with image, mse, percentile and outlier, or image and error
"""


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "score", "tell how unusual each image is", run, EPILOG)
    add_service(command, timeout_s=60)  # for hundreds of files
    add_json(command, "a JSON document for each image, one a line")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")


def run(options: argparse.Namespace) -> int:
    """Print a line for each image, as the answers come."""
    failed = False
    with connect(options) as client:
        for path, answer in judge(client, options.images):
            if isinstance(answer, Reconstruction):
                tell(path, answer, {}, options.json)
            else:
                failed = True
                tell_fault(path, answer, options.json)
    return SOME_FAILED if failed else 0
