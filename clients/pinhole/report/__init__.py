"""What a job's result says, as one HTML page that needs nothing else, and as a list.

tally       one pass over the result: counts, errors, the most unusual rows
duplicates  images that the model can't tell apart
memory      the model's decoder, of a bundle or a service
pictures    the most unusual images, and what the model made of them
chart       the distribution of the error
sections    the page's parts as HTML

The result is read as the atlas reads it, and the map is the atlas's.
"""

import csv
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import IO, Any

from pinhole.atlas import map_data
from pinhole.atlas.page import STYLES, write_page
from pinhole.atlas.pictures import Originals, thumbnail
from pinhole.atlas.result import Result, UnfitResult
from pinhole.atlas.sample import Classes
from pinhole.report import sections
from pinhole.report.duplicates import Duplicates, Group, find_duplicates
from pinhole.report.memory import Memory
from pinhole.report.pictures import pictures_of
from pinhole.report.sections import Card, Copies
from pinhole.report.tally import Tally
from serve.bundle.manifest import ImageSpec

HERE = Path(__file__).parent
MARK = b'<meta name="generator" content="pinhole report">'  # Near the beginning of every page.

CARDS = 48
MAX_THUMBNAILS_BYTES = 4 * 2**20  # Of the map; base64 adds a third.
LIST = ("path", "sha256", "mse", "percentile", "outlier")  # The list's columns.
LIST_MARK = b"path,sha256,mse"  # How every list begins.


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


def make_report(result: Result, originals: Originals, memory: Memory | None) -> Report:
    """Make the page of a result.

    Args:
        result: of a job.
        originals: its images.
        memory: the model that embedded it; None leaves out what the model remembers.

    Raises:
        UnfitResult: a file of the result is damaged.
        PinholeError: the service can't be reached any more.
    """
    tally = Tally(result)
    duplicates = find_duplicates(result, tally)
    image = result.image or (memory.image if memory else None)
    sample = tally.sample()
    data = None if sample is None else map_data(sample, result, originals, MAX_THUMBNAILS_BYTES)
    classes = Classes.of(data["paths"] if data else [])
    cards = make_cards(tally, originals, memory, image, classes)
    largest = [copies(group, originals, image) for group in duplicates.largest]
    body = "\n".join(
        (
            sections.intro(result, tally, duplicates.images),
            sections.errors(tally),
            sections.unusual(cards, missing(originals, memory, image)),
            sections.failures(tally.failures.most_common()),
            sections.near_duplicates(largest, duplicates),
            sections.stage() if data else "",
        )
    )
    styles = (*STYLES, HERE / "report.css")
    title = sections.name_of(result)
    page = write_page(HERE / "report.html", title, data, styles, body)
    return Report(page, tally, duplicates)


def make_cards(
    tally: Tally,
    originals: Originals,
    memory: Memory | None,
    image: ImageSpec | None,
    classes: Classes,
) -> list[Card]:
    """The most unusual images, the most unusual first; none without scores."""
    rows = tally.unusual()
    if rows is None:
        return []
    rows = rows.slice(0, CARDS)
    pictures = pictures_of(rows, originals, memory, image)
    return [
        Card(
            path=row["path"],
            label=classes.label(row["path"]),
            mse=row["mse"],
            percentile=row.get("percentile"),
            outlier=bool(row.get("outlier")),
            pictures=pictures[row["row"]],
        )
        for row in rows.to_pylist()
    ]


def copies(group: Group, originals: Originals, image: ImageSpec | None) -> Copies:
    """A group of near-duplicates with thumbnails."""
    rows = group.members.to_pylist()
    small = [thumbnail(content, image) for content in originals.contents(group.members)]
    same = [row.get("sha256") == rows[0].get("sha256") for row in rows]
    paths = [row["path"] for row in rows]
    return Copies(group.count, list(zip(paths, small, same, strict=True)))


def missing(originals: Originals, memory: Memory | None, image: ImageSpec | None) -> list[str]:
    """What the page can't show, and how to get it: HTML."""
    notes = []
    if originals.name is None:
        why = escape(originals.why)
        notes.append(f"The original images can’t be read: {why}. Name their folder: --images.")
    if memory is None:
        notes.append(
            "What the model remembers, and where it differs, is shown with the model: "
            "--local BUNDLE or --url URL."
        )
    if originals.name and image is None:
        notes.append("What the model saw is left out: the result doesn’t say how it is cut out.")
    return notes


def write_list(file: IO[bytes], tally: Tally) -> int:
    """Write the most unusual images as CSV, the most unusual first; returns how many.

    Raises:
        UnfitResult: the result has no scores.
    """
    rows: Any = tally.unusual()
    if not tally.scored:
        raise UnfitResult("the result has no column mse: embed with --score")
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.DictWriter(text, LIST, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    listed = [] if rows is None else rows.to_pylist()
    for row in listed:
        writer.writerow({name: as_text(value) for name, value in row.items()})
    text.flush()
    text.detach()
    return len(listed)


def as_text(value: Any) -> Any:
    """A value as a job's own .csv has it: true, not True, and the digits that a float32 has."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.7g}" if isinstance(value, float) else value
