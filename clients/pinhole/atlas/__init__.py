"""A job's embeddings as one HTML file that needs nothing else: to look at, to keep, to share.

The page is the explorer's map without a service. The file holds the points, the program, and small
copies of those of the job's images that can be read, which appear under the pointer. They
show what the model saw of an image, if the job has written down how its model takes pictures.

result     a job's rows, a batch at a time
model      the model that embedded them, if it is named
sample     some of these rows, drawn evenly; the classes that folders give
pictures   the images, read again, and small
page       the HTML file; the report's pages are written in the same way
"""

from dataclasses import dataclass
from html import escape
from typing import Any

import pyarrow.compute as pc

from pinhole.atlas.model import Model
from pinhole.atlas.page import map_element, mark_of, write_page
from pinhole.atlas.pictures import Originals, in_base64, thumbnail
from pinhole.atlas.result import Result, UnfitResult, vectors
from pinhole.atlas.sample import Classes, Sample
from serve.bundle.manifest import ImageSpec

MARK = mark_of("atlas")

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


def make_atlas(result: Result, originals: Originals, model: Model | None) -> Atlas:
    """Make the page of a job's result.

    Args:
        result: of a job.
        originals: its images.
        model: that embedded it; None leaves images without folders unnamed.

    Raises:
        UnfitResult: it holds not a single embedding, or a file of it is damaged.
    """
    sample, rows, good = Sample(MAX_POINTS), 0, 0
    for table in result.batches("path", "sha256", "embedding"):
        embedded = table.filter(pc.is_valid(table["embedding"]))
        sample.add(embedded)
        rows, good = rows + len(table), good + len(embedded)
    chosen = sample.rows()
    if not good:
        why = f"all its {rows:,} rows have an error" if rows else "it has no rows"
        raise UnfitResult(f"{result.path} holds no embeddings: {why}")
    data = map_data(chosen, result, originals, MAX_THUMBNAILS_BYTES, model)
    title = result.path.stem
    body = (
        f'<section class="intro"><h1>{escape(title)}</h1><p id="lead"></p></section>'
        f'<section class="stage" aria-label="Map of the embeddings">{map_element()}</section>'
    )
    return Atlas(
        page=write_page(MARK, title, body, data),
        points=len(chosen),
        thumbnails=sum(each != "" for each in data["thumbnails"]),
        failed=rows - good,
        left_out=good - len(chosen),
        originals=originals,
        seen=data["seen"],
    )


def map_data(
    chosen: Any, result: Result, originals: Originals, most_bytes: int, model: Model | None
) -> dict[str, Any]:
    """What atlas.js shows.

    Args:
        chosen: a pyarrow.Table of the rows to show, in their order.
        result: that they are from.
        originals: their images.
        most_bytes: of all thumbnails together.
        model: names the images where no folders do.
    """
    paths = chosen["path"].to_pylist()
    classes = Classes.of(paths)
    labels, image = labels_of(chosen, classes, model), image_of(result, model)
    small = (thumbnail(content, image) for content in originals.contents(chosen))
    return {
        "paths": paths,
        "embeddings": vectors(chosen).astype(float).round(DECIMALS).tolist(),
        "labels": labels,
        "named": classes.depth is None and any(labels),
        "thumbnails": list(in_base64(small, most_bytes)) if originals.name else [],
        "seen": image is not None,
    }


def labels_of(rows: Any, classes: Classes, model: Model | None) -> list[str]:
    """The class of each row of a pyarrow.Table: its folder's, or else what the model would say."""
    if classes.depth is None and model:
        return model.name_each(vectors(rows))
    return [classes.label(path) for path in rows["path"].to_pylist()]


def image_of(result: Result, model: Model | None) -> ImageSpec | None:
    """The pictures that the model takes; None where neither the result nor the model says it."""
    return result.image or (model.image if model else None)
