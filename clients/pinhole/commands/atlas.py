"""``pinhole atlas``: a job's embeddings as one HTML file, for sharing."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pinhole.commands import (
    Commands,
    UsageError,
    add_command,
    add_overwrite,
    add_service,
    connect,
    needing_modules,
)
from pinhole.outputs import check_replaceable, file_key, local_path, write_whole

if TYPE_CHECKING:
    from pinhole.atlas import Atlas
    from pinhole.atlas.model import Model
    from pinhole.atlas.result import Result

TIMEOUT_S = 60
EPILOG = """
examples:
  pinhole atlas scans.parquet --out scans.html
  pinhole atlas embeddings/ --out scans.html
  pinhole atlas scans.parquet --out scans.html --images scans/   where the images are now
  pinhole atlas scans.parquet --out scans.html --local build/mnist   with the model's own classes

Thumbnails show what the model saw of each image, where the job has written that down.
At most 100,000 points, drawn evenly from all rows, and 24 MiB of thumbnails. The first folder in
which the paths differ, below train, test and the like, becomes the label; of more than 50, none.
Where there are no such folders, --local or --url labels each image with the class of the nearest
of the images that the model was tested on.
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
    either = add_service(command, TIMEOUT_S, url=None)
    either.add_argument(
        "--local", type=Path, metavar="BUNDLE", help="the model that embedded RESULT"
    )


def run(options: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    with needing_modules("atlas", "explore"):
        import PIL  # noqa: F401 - only thumbnails need it; here it is missed before any work
    with needing_modules("atlas"):
        from pinhole.atlas import MARK, make_atlas
        from pinhole.atlas.pictures import open_originals
        from pinhole.atlas.result import UnfitResult, open_result

    out = check_page(options, MARK)
    try:
        result = open_result(options.result)
        with (
            open_model(result, options) as model,
            open_originals(result, options.images) as originals,
        ):
            atlas = make_atlas(result, originals, model)
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
    if file_key(out) in keys_of(options.result):
        raise UsageError(f"{out} is the result, or one of its files: name another --out")
    check_replaceable(out, lambda start: mark in start, options.overwrite)
    return out


def keys_of(result: Path) -> set[tuple[int, int] | None]:
    """The file_key of a result, and of each file in a folder of shards."""
    names = [result, result / "_job.json", *result.glob("shard-*.parquet")]
    return {file_key(name) for name in names} - {None}


@contextmanager
def open_model(result: "Result", options: argparse.Namespace) -> "Iterator[Model | None]":
    """The model that embedded a result, if the options of add_result name it."""
    from pinhole.atlas.model import local_model, service_model
    from pinhole.jobs.pictures import find_page

    if options.local:
        with needing_modules("--local"):
            yield local_model(result, options.local)
    elif options.url:
        find = partial(find_page, options.url, options.api_key, options.timeout_s)
        with connect(options) as client:
            yield service_model(result, client, find)
    else:
        yield None


def report(out: Path, atlas: "Atlas") -> None:
    """Say what is in the page, and what isn't."""
    notes = [f"{atlas.points:,} points", f"{atlas.thumbnails:,} thumbnails"]
    if atlas.originals.name is None:
        notes[1] += f" ({atlas.originals.why}: --images FOLDER)"
    elif atlas.thumbnails < atlas.points:
        notes[1] += f" of images in {atlas.originals.name} (the others can't be read, have changed"
        notes[1] += " or moved, or are over the limit)"
    if atlas.thumbnails and not atlas.seen:
        notes.append("they show whole files (the result doesn't say what its model saw of them)")
    if atlas.failed:
        notes.append(f"{atlas.failed:,} failed rows left out")
    if atlas.left_out:
        notes.append(f"drawn evenly from {atlas.points + atlas.left_out:,} rows")
    size = out.stat().st_size / 2**20
    print(f"{out}: {', '.join(notes)}; {size:.1f} MiB")
