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
  pinhole atlas scans.parquet --out scans.html --images scans/   where the images are now

Thumbnails show what the model saw of each image, where the job has written that down.
At most 100,000 points and 24 MiB of thumbnails; folders of the paths become labels.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "make one HTML file of a job's embeddings, with small copies of its images"
    command = add_command(commands, "atlas", about, run, EPILOG)
    command.add_argument("table", type=Path, metavar="EMBEDDINGS.parquet")
    command.add_argument("--out", required=True, metavar="FILE.html")
    add_overwrite(command)
    command.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="folder that the table's paths are relative to (default: the job's source, if that is "
        "a folder)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    with needing_modules("atlas", "explore"):
        import PIL  # noqa: F401 - only thumbnails need it; here it is missed before any work
    with needing_modules("atlas"):
        from pinhole.atlas import MARK, UnfitTable, make_atlas

    if options.images and not options.images.is_dir():
        raise UsageError(f"--images {options.images} is not a folder")
    out = local_path(options.out)
    if out.exists() and file_key(out) == file_key(options.table):
        raise UsageError(f"{out} is the table itself: name another --out")
    check_replaceable(out, lambda start: MARK in start, options.overwrite)
    try:
        atlas = make_atlas(options.table, options.images)
    except UnfitTable as error:
        raise UsageError(str(error)) from error
    write_whole(out, lambda file: file.write(atlas.page.encode()))
    report(out, atlas)
    return 0


def report(out: Path, atlas: "Atlas") -> None:
    """Say what is in the page, and what isn't."""
    notes = [f"{atlas.points:,} points", f"{atlas.thumbnails:,} thumbnails"]
    if atlas.source is None:
        notes[1] += " (the images' folder isn't known or isn't there: --images FOLDER)"
    elif atlas.thumbnails < atlas.points:
        notes[1] += f" of images in {atlas.source} (the others are unreadable, or over the limit)"
    if atlas.thumbnails and not atlas.seen:
        notes.append("they show whole files (the table doesn't say what its model saw of them)")
    if atlas.failed:
        notes.append(f"{atlas.failed:,} failed rows left out")
    if atlas.left_out:
        notes.append(f"{atlas.left_out:,} rows over the limit left out")
    size = out.stat().st_size / 2**20
    print(f"{out}: {', '.join(notes)}; {size:.1f} MiB")
