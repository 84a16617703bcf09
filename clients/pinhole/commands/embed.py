"""``pinhole embed``: a folder of images into a Parquet file."""

import argparse
import time
from pathlib import Path

from pinhole.commands import SOME_FAILED, Commands, UsageError, add_command, add_service, connect


def add(commands: Commands) -> None:
    """Add the command."""
    about = "embed a folder of images into a Parquet file"
    command = add_command(commands, "embed", about, run)
    add_service(command, timeout_s=120)  # for hundreds of files
    command.add_argument(
        "source", type=Path, metavar="FOLDER", help="searched for image files, at any depth"
    )
    command.add_argument("--out", type=Path, required=True, metavar="FILE.parquet")


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    try:
        from pinhole.jobs import embed_files, list_images
        from pinhole.progress import job_progress
    except ImportError as error:
        raise UsageError(f"embed needs {error.name}: pip install 'pinhole[jobs]'") from error
    if not options.source.is_dir():
        raise UsageError(f"{options.source} is not a folder")
    if options.out.is_dir():
        raise UsageError(f"--out {options.out} is a folder; name a file in it")
    paths = list_images(options.source)
    if not paths:
        raise UsageError(f"{options.source} holds no image files")
    started = time.monotonic()
    with connect(options) as client, job_progress(len(paths)) as on_rows:
        totals = embed_files(client, options.source, paths, options.out, on_rows)
    seconds = time.monotonic() - started
    print(
        f"{totals.embedded:,} images embedded into {options.out}, {totals.failed:,} failed, "
        f"in {seconds:.1f} s ({len(paths) / seconds:,.0f} images/s)"
    )
    return SOME_FAILED if totals.failed else 0
