"""``pinhole score``: how well the model knows each image."""

import argparse

from pinhole.client import Client
from pinhole.commands import Commands, add_command
from pinhole.commands.judging import add_images, find_images, judge

EPILOG = """
mse is the mean squared error per pixel of what the model remembers, with pixels in [0, 1].
percentile is the share of known images, in percent, that the model remembers better. An outlier
looks like none of the known images.

examples:
  pinhole score seven.png
  pinhole score scans/                      every image in a folder
  pinhole score --json scans/*.png > scores.jsonl
  pinhole score scans/*.png | sort -k3      by mse

--json: a line for each image, in order, with image, mse, percentile and outlier, or with image and
error
"""


def add(commands: Commands) -> None:
    """Add the command."""
    add_images(add_command(commands, "score", "tell how unusual each image is", run, EPILOG))


def run(options: argparse.Namespace) -> int:
    """Print a line for each image; returns the exit code."""
    images = find_images(options.images)
    return judge(options, images, Client.score_each, lambda path, answer: {})
