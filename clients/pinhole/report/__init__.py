"""What a job's result says, as one HTML page that needs nothing else, and as a list.

tally       one pass over the result: counts, errors, the most unusual rows
duplicates  images that the model can't tell apart
pictures    the most unusual images, and what the model made of them
chart       the distribution of the error
sections    the page's parts as HTML

The result and its model are read as the atlas reads them, and the map is the atlas's.
"""

import csv
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import IO, Any

from pinhole.atlas import image_of, labels_of, map_data
from pinhole.atlas.model import Model
from pinhole.atlas.page import STYLES, mark_of, write_page
from pinhole.atlas.pictures import Originals, thumbnail
from pinhole.atlas.result import Result
from pinhole.atlas.sample import Classes
from pinhole.report import sections
from pinhole.report.duplicates import Duplicates, find_duplicates
from pinhole.report.pictures import pictures_of
from pinhole.report.tally import Tally
from serve.bundle.manifest import ImageSpec

HERE = Path(__file__).parent
MARK = mark_of("report")

CARDS = 48
MAX_THUMBNAILS_BYTES = 4 * 2**20  # Of the map; base64 adds a third.
LIST = ("path", "sha256", "mse", "percentile", "outlier")  # The list's columns.
LIST_MARK = ",".join(LIST).encode() + b"\n"  # A list with another column is its user's.


@dataclass(frozen=True)
class Report:
    """A page, and what it was made from.

    Attributes:
        page: HTML.
        tally: of the result.
        duplicates: in the result.
    """

    page: str
    tally: Tally
    duplicates: Duplicates


def make_report(result: Result, originals: Originals, model: Model | None) -> Report:
    """Make the page of a result.

    Args:
        result: of a job.
        originals: its images.
        model: that embedded it; None leaves out what the model remembers.

    Raises:
        UnfitResult: a file of the result is damaged.
        PinholeError: the service can't be reached any more.
    """
    tally = Tally(result)
    duplicates = find_duplicates(result, tally)
    image, sample = image_of(result, model), tally.sample()
    data = None
    if sample is not None:
        data = map_data(sample, result, originals, MAX_THUMBNAILS_BYTES, model)
    classes = Classes.of(data["paths"] if data else [])
    cards = make_cards(tally, originals, model, image, classes)
    groups = [
        sections.group(each, [thumbnail(one, image) for one in originals.contents(each.members)])
        for each in duplicates.largest
    ]
    body = "\n".join(
        (
            sections.intro(result, tally, duplicates.images),
            sections.errors(tally),
            sections.unusual(cards, remarks(originals, model, image, classes)),
            sections.failures(tally.failures.most_common()),
            sections.near_duplicates(groups, duplicates),
            sections.stage() if data else "",
        )
    )
    styles = (*STYLES, HERE / "report.css")
    page = write_page(MARK, sections.name_of(result), body, data, styles)
    return Report(page, tally, duplicates)


def make_cards(
    tally: Tally,
    originals: Originals,
    model: Model | None,
    image: ImageSpec | None,
    classes: Classes,
) -> list[str]:
    """The most unusual images as HTML, the most unusual first; none without scores."""
    rows = tally.unusual()
    if rows is None:
        return []
    rows = rows.slice(0, CARDS)
    pictures, labels = pictures_of(rows, originals, model, image), labels_of(rows, classes, model)
    return [
        sections.card(row, label, pictures[row["row"]])
        for row, label in zip(rows.to_pylist(), labels, strict=True)
    ]


def remarks(
    originals: Originals, model: Model | None, image: ImageSpec | None, classes: Classes
) -> list[str]:
    """What the page can't show, and how to get it; and whose classes it names: HTML."""
    notes = []
    if originals.name is None:
        why = escape(originals.why)
        notes.append(f"The original images can’t be read: {why}. Name their folder: --images.")
    if model is None:
        notes.append(
            "What the model remembers, and where it differs, is shown with the model: "
            "--local BUNDLE or --url URL."
        )
    if originals.name and image is None:
        notes.append("What the model saw is left out: the result doesn’t say how it is cut out.")
    if model and model.names and classes.depth is None:
        notes.append("A label is the class of the nearest of the model’s own test images.")
    return notes


def write_list(file: IO[bytes], tally: Tally) -> None:
    """Write the most unusual images as CSV, the most unusual first."""
    rows: Any = tally.unusual()
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.DictWriter(text, LIST, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    for row in [] if rows is None else rows.to_pylist():
        writer.writerow({name: as_text(value) for name, value in row.items()})
    text.flush()
    text.detach()


def as_text(value: Any) -> Any:
    """A value as a job's own .csv has it: true, not True, and the digits that a float32 has."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.7g}" if isinstance(value, float) else value
