"""``pinhole report``: what a job's result says, as one HTML file, and as a list."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pinhole.commands import (
    Commands,
    UsageError,
    add_command,
    needing_modules,
)
from pinhole.commands.atlas import add_result, check_page, keys_of, open_model
from pinhole.outputs import check_replaceable, file_key, local_path, write_whole

if TYPE_CHECKING:
    from pinhole.report import Report

ABOUT = "make one HTML page of a job's result: errors, the most unusual images, failures, copies"
EPILOG = """
examples:
  pinhole report scans.parquet --out report.html
  pinhole report embeddings/ --out report.html --local build/mnist   with what the model remembers
  pinhole report scans.parquet --out report.html --csv unusual.csv

The page shows how many were embedded, the distribution of the error beside the model's own, the
most unusual images, failures by reason, near-duplicates, and a map of 2,000 images drawn evenly.
Errors need a result of pinhole embed --score. The original images are read again from the job's
source, or from --images. What the model remembers is drawn by a bundle or a service of the model.

--csv: the 10,000 most unusual images, the most unusual first, with path, sha256, mse, percentile
and outlier
"""


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "report", ABOUT, run, EPILOG)
    add_result(command)
    command.add_argument("--csv", metavar="FILE.csv", help="also write the list of unusual images")


def run(options: argparse.Namespace) -> int:
    """Write the page and the list; returns the exit code."""
    with needing_modules("report", "explore"):
        import PIL  # noqa: F401 - here it is missed before any work
    with needing_modules("report"):
        from pinhole.atlas.pictures import open_originals
        from pinhole.atlas.result import UnfitResult, open_result
        from pinhole.report import MARK, make_report

    out = check_page(options, MARK)
    listed = check_list(options, out) if options.csv else None
    try:
        result = open_result(options.result)
        if listed and not result.scored:
            raise UnfitResult("the result has no scores: embed with --score")
        with (
            open_model(result, options) as model,
            open_originals(result, options.images) as originals,
        ):
            made = make_report(result, originals, model)
        write(made, out, listed)
    except UnfitResult as error:
        raise UsageError(str(error)) from error
    return 0


def check_list(options: argparse.Namespace, out: Path) -> Path:
    """The list to write.

    Raises:
        UsageError: it would replace the result or the page.
        OSError: it would replace a file of somebody else, or is a URL.
    """
    from pinhole.report import LIST_MARK

    listed = local_path(options.csv)
    taken = keys_of(options.result) | ({file_key(out)} - {None})
    if listed.resolve() == out.resolve() or file_key(listed) in taken:
        raise UsageError(f"--csv {listed} is the result or the page: name another file")
    check_replaceable(listed, lambda start: start.startswith(LIST_MARK), options.overwrite)
    return listed


def write(made: "Report", out: Path, listed: Path | None) -> None:
    """Write the files, and say what is in them."""
    from pinhole.report import write_list
    from pinhole.report.sections import count

    tally = made.tally
    notes = [count(tally.rows, "image"), f"{tally.rows - tally.embedded:,} failed"]
    if tally.scored:
        notes.append(count(tally.outliers, "outlier"))
    notes.append(f"{made.duplicates.images:,} with near-duplicates")
    if listed:
        write_whole(listed, lambda file: write_list(file, tally))
    write_whole(out, lambda file: file.write(made.page.encode()))
    print(f"{out}: {', '.join(notes)}; {out.stat().st_size / 2**20:.1f} MiB")
