"""``pinhole reconstruct``: write what the model remembers of each image."""

import argparse
from pathlib import Path

from pinhole.answers import Reconstruction
from pinhole.commands import Commands, UsageError, add_command
from pinhole.commands.judging import add_images, judge, shown

EPILOG = """
examples:
  pinhole reconstruct seven.png                        writes seven.reconstruction.png
  pinhole reconstruct scans/*.png --out remembered/
  pinhole reconstruct --seen seven.png                 writes seven.seen.png too
  pinhole reconstruct --json scans/*.png > told.jsonl

--seen: the file as the model was given it: cut out, scaled and inverted where its framing and
polarity ask for it
--json: a line for each image, in order, with image, out, mse, percentile and outlier, or with image
and error; pinhole score --help says what the numbers mean
"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "write NAME.reconstruction.png beside each image"
    command = add_command(commands, "reconstruct", about, run, EPILOG)
    add_images(command)
    command.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for the pictures (default: the images' own)"
    )
    command.add_argument(
        "--seen", action="store_true", help="also write NAME.seen.png: what the model saw"
    )


def run(options: argparse.Namespace) -> int:
    """Write the pictures, and print how good each is; returns the exit code."""
    outputs = {path: output_of(path, options.out) for path in options.images}
    if len(set(outputs.values())) < len(outputs):
        raise UsageError("two of the images would be written to the same NAME.reconstruction.png")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)

    def save(path: Path, answer: Reconstruction) -> dict[str, str]:
        outputs[path].write_bytes(answer.png)
        if answer.seen is None:
            return {"out": shown(outputs[path])}
        seen = outputs[path].with_name(f"{path.stem}.seen.png")
        seen.write_bytes(answer.seen)
        return {"out": shown(outputs[path]), "seen": shown(seen)}

    return judge(options, save, seen=options.seen)


def output_of(path: Path, folder: Path | None) -> Path:
    """The file for the reconstruction of an image."""
    name = f"{path.stem}.reconstruction.png"
    return folder / name if folder else path.with_name(name)
