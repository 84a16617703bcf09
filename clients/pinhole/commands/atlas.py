"""``pinhole atlas``: a job's embeddings as one HTML file, for sharing."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pinhole.commands import (
    Commands,
    UsageError,
    add_command,
    add_overwrite,
    needing_modules,
)
from pinhole.outputs import check_replaceable, file_key, local_path, write_whole

if TYPE_CHECKING:
    from pinhole.atlas import Atlas

EPILOG = """
examples:
  pinhole atlas scans.parquet --out scans.html
  pinhole atlas embeddings/ --out scans.html
  pinhole atlas scans.parquet --out scans.html --images scans/   where the images are now

Thumbnails show what the model saw of each image, where the job has written that down.
At most 100,000 points, drawn evenly from all rows, and 24 MiB of thumbnails. The first folder in
which the paths differ, below train, test and the like, becomes the label; of more than 50, none.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "make one HTML file of a job's embeddings, with small copies of its images"
    command = add_command(commands, "atlas", about, run, EPILOG)
    add_result(command)


def add_result(command: argparse.ArgumentParser) -> None:
    """Add what says which result becomes which page; the report has it, too."""
    command.add_argument(
        "result",
        type=Path,
        metavar="RESULT",
        help="of pinhole embed: a folder of shards, or a .parquet or .csv file",
    )
    command.add_argument("--out", required=True, metavar="FILE.html")
    add_overwrite(command)
    command.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="folder that the result's paths are relative to (default: the job's source)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    with needing_modules("atlas", "explore"):
        import PIL  # noqa: F401 - only thumbnails need it; here it is missed before any work
    with needing_modules("atlas"):
        from pinhole.atlas import MARK, UnfitResult, make_atlas

    out = check_page(options, MARK)
    try:
        atlas = make_atlas(options.result, options.images)
    except UnfitResult as error:
        raise UsageError(str(error)) from error
    write_whole(out, lambda file: file.write(atlas.page.encode()))
    report(out, atlas)
    return 0


def check_page(options: argparse.Namespace, mark: bytes) -> Path:
    """The page to write, for the options of add_result.

    Args:
        options: see add_result.
        mark: what an earlier page of the same command has near its beginning.

    Raises:
        UsageError: the page would replace the result, or --images is no folder.
        OSError: it would replace a file of somebody else, or is a URL.
    """
    if options.images and not options.images.is_dir():
        raise UsageError(f"--images {options.images} is not a folder")
    out = local_path(options.out)
    if out.exists() and file_key(out) == file_key(options.result):
        raise UsageError(f"{out} is the result itself: name another --out")
    check_replaceable(out, lambda start: mark in start, options.overwrite)
    return out


def report(out: Path, atlas: "Atlas") -> None:
    """Say what is in the page, and what isn't."""
    notes = [f"{atlas.points:,} points", f"{atlas.thumbnails:,} thumbnails"]
    if atlas.originals.name is None:
        notes[1] += f" ({atlas.originals.why}: --images FOLDER)"
    elif atlas.thumbnails < atlas.points:
        notes[1] += f" of images in {atlas.originals.name} (the others can't be read, have changed"
        notes[1] += " or are over the limit)"
    if atlas.thumbnails and not atlas.seen:
        notes.append("they show whole files (the result doesn't say what its model saw of them)")
    if atlas.failed:
        notes.append(f"{atlas.failed:,} failed rows left out")
    if atlas.left_out:
        notes.append(f"drawn evenly from {atlas.points + atlas.left_out:,} rows")
    size = out.stat().st_size / 2**20
    print(f"{out}: {', '.join(notes)}; {size:.1f} MiB")
