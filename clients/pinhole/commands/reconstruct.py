"""``pinhole reconstruct``: write what the model remembers of each image."""

import argparse
from pathlib import Path

from pinhole.answers import Reconstruction
from pinhole.commands import (
    SOME_FAILED,
    Commands,
    UsageError,
    add_command,
    add_json,
    add_service,
    connect,
)
from pinhole.commands.judging import judge, shown, tell, tell_fault

EPILOG = """
examples:
  pinhole reconstruct seven.png                        writes seven.reconstruction.png
  pinhole reconstruct scans/*.png --out remembered/
  pinhole reconstruct --json scans/*.png > told.jsonl

--json: a line for each image, in order, with image, out, mse, percentile and outlier, or image and
error; pinhole score --help tells what they mean
"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "write NAME.reconstruction.png beside each image"
    command = add_command(commands, "reconstruct", about, run, EPILOG)
    add_service(command, timeout_s=60)  # for hundreds of files
    add_json(command, "a JSON document for each image, one a line")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="to write into instead")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE")


def run(options: argparse.Namespace) -> int:
    """Write the pictures, and tell how good each is."""
    outputs = {path: output_of(path, options.out) for path in options.images}
    if len(set(outputs.values())) < len(outputs):
        raise UsageError("two of the images would be written to the same NAME.reconstruction.png")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    failed = False
    with connect(options) as client:
        for path, answer in judge(client, outputs):
            if isinstance(answer, Reconstruction):
                outputs[path].write_bytes(answer.png)
                tell(path, answer, {"out": shown(outputs[path])}, options.json)
            else:
                failed = True
                tell_fault(path, answer, options.json)
    return SOME_FAILED if failed else 0


def output_of(path: Path, folder: Path | None) -> Path:
    """Where the picture of an image goes."""
    name = f"{path.stem}.reconstruction.png"
    return folder / name if folder else path.with_name(name)
