"""A job's embeddings as one HTML file that needs nothing else: to look at, to keep, to share.

The page is the explorer's map without a service. The file holds the points, the program, and small
copies of those of the job's images that can be read, which appear under the pointer. They
show what the model saw of an image, if the job has written down how its model takes pictures.

result     a job's rows, a batch at a time
sample     some of these rows, drawn evenly; the classes that folders give
pictures   the images, read again, and small
page       the HTML file; the report's pages are written in the same way
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pinhole.atlas.page import HERE, write_page
from pinhole.atlas.pictures import Originals, in_base64, open_originals, thumbnail
from pinhole.atlas.result import Result, UnfitResult, open_result, vectors
from pinhole.atlas.sample import Classes, Sample

__all__ = ["MARK", "Atlas", "UnfitResult", "make_atlas", "map_data"]

# What atlas.html has near its beginning, so that ``pinhole atlas`` may replace its own pages.
MARK = b'<meta name="generator" content="pinhole atlas">'

DECIMALS = 4  # Of the embeddings in the page: finer than a pixel of any screen.
MAX_POINTS = 100_000  # A canvas still pans that many smoothly, and mail still carries the file.
MAX_THUMBNAILS_BYTES = 24 * 2**20  # All thumbnails together; base64 adds a third.


@dataclass(frozen=True)
class Atlas:
    """A page, and what is in it.

    Attributes:
        page: HTML.
        points: number of points.
        thumbnails: number of points that have a thumbnail.
        failed: number of the job's rows without an embedding.
        left_out: number of rows beyond MAX_POINTS.
        originals: the images that were made into thumbnails.
        seen: whether the thumbnails show what the model saw, not the whole files.
    """

    page: str
    points: int
    thumbnails: int
    failed: int
    left_out: int
    originals: Originals
    seen: bool


def make_atlas(path: Path, images: Path | None) -> Atlas:
    """Make the page of a job's result.

    Args:
        path: see open_result.
        images: the folder that the paths are relative to; None takes the job's own source.

    Raises:
        UnfitResult: it is no job's result, or holds not a single embedding.
        OSError: it can't be opened.
    """
    result = open_result(path)
    sample, rows, good = Sample(MAX_POINTS), 0, 0
    for table in result.batches("path", "sha256", "embedding"):
        embedded = table.filter(pc.is_valid(table["embedding"]))
        sample.add(embedded)
        rows, good = rows + len(table), good + len(embedded)
    chosen = sample.rows()
    if not good:
        raise UnfitResult(f"{path} holds no embeddings: all its {rows:,} rows have an error")
    with open_originals(result, images) as originals:
        data = map_data(chosen, result, originals, MAX_THUMBNAILS_BYTES)
    return Atlas(
        page=write_page(HERE / "atlas.html", path.stem, data),
        points=len(chosen),
        thumbnails=sum(each != "" for each in data["thumbnails"]),
        failed=rows - good,
        left_out=good - len(chosen),
        originals=originals,
        seen=result.image is not None,
    )


def map_data(chosen: Any, result: Result, originals: Originals, most_bytes: int) -> dict[str, Any]:
    """What atlas.js shows.

    Args:
        chosen: a pyarrow.Table of the rows to show, in their order.
        result: that they are from.
        originals: their images.
        most_bytes: of all thumbnails together.
    """
    paths = chosen["path"].to_pylist()
    classes = Classes.of(paths)
    small = (thumbnail(content, result.image) for content in originals.contents(chosen))
    return {
        "paths": paths,
        "embeddings": vectors(chosen).astype(float).round(DECIMALS).tolist(),
        "labels": [classes.label(path) for path in paths],
        "thumbnails": list(in_base64(small, most_bytes)) if originals.name else [],
        "seen": result.image is not None,
    }
