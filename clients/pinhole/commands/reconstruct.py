"""``pinhole reconstruct``: write what the model remembers of each image."""

import argparse
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from pinhole.answers import Reconstruction
from pinhole.client import Client
from pinhole.commands import Commands, UsageError, add_command, add_overwrite
from pinhole.commands.judging import add_images, find_images, judge, shown
from pinhole.commands.png import has_mark, write_png
from pinhole.outputs import check_replaceable, file_key, local_path

NAME_BYTES = 255  # of a file, at most, in most file systems

EPILOG = """
examples:
  pinhole reconstruct seven.png                        writes seven.reconstruction.png
  pinhole reconstruct scans/*.png --out remembered/
  pinhole reconstruct scans/2026-11                    a folder, at any depth
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
        "--out", metavar="FOLDER", help="for the pictures (default: the images' own)"
    )
    command.add_argument(
        "--seen", action="store_true", help="also write NAME.seen.png: what the model saw"
    )
    add_overwrite(command)


def run(options: argparse.Namespace) -> int:
    """Write the pictures, and print how good each is; returns the exit code."""
    folder = local_path(options.out) if options.out else None
    images = find_images(options.images)
    outputs = {path: output_of(path, folder) for path in images}
    if len(set(outputs.values())) < len(outputs):
        raise UsageError("two of the images would be written to the same NAME.reconstruction.png")
    written = list(outputs.values())
    if options.seen:
        written += [seen_beside(out, path) for path, out in outputs.items()]
    check_outputs(images, written, options.overwrite)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)

    def save(path: Path, answer: Reconstruction) -> dict[str, str]:
        write_png(outputs[path], answer.png)
        if answer.seen is None:
            return {"out": shown(outputs[path])}
        seen = seen_beside(outputs[path], path)
        write_png(seen, answer.seen)
        return {"out": shown(outputs[path]), "seen": shown(seen)}

    return judge(options, images, partial(Client.reconstruct_each, seen=options.seen), save)


def check_outputs(images: Iterable[Path], outputs: Iterable[Path], overwrite: bool) -> None:
    """Refuse to write over an image that is to be read, or over a file of somebody else.

    Raises:
        UsageError: an output is one of the images, or its name is too long.
        OSError: an output is there, and isn't a command's own.
    """
    inputs = {file_key(path) for path in images} - {None}
    for path in outputs:
        if file_key(path) in inputs:
            raise UsageError(
                f"{shown(path)} is one of the images, and would be written over: leave it out, or "
                "name another folder with --out"
            )
        if len(os.fsencode(path.name)) > NAME_BYTES:
            raise UsageError(
                f"{shown(path)} can't be written: its name has over {NAME_BYTES} bytes; rename the "
                "image, or leave it out"
            )
        check_replaceable(path, has_mark, overwrite)


def output_of(path: Path, folder: Path | None) -> Path:
    """The file for the reconstruction of an image."""
    name = f"{path.stem}.reconstruction.png"
    return folder / name if folder else path.with_name(name)


def seen_beside(output: Path, path: Path) -> Path:
    """The file for what the model saw of an image, beside the image's reconstruction."""
    return output.with_name(f"{path.stem}.seen.png")
