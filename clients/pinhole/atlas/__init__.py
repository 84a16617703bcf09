"""A job's embeddings as one HTML file that needs nothing else: to look at, to keep, to share.

The page is the explorer's map without a service. The file holds the points, the program, and small
copies of those of the job's images that can be read, which appear under the pointer. They
show what the model saw of an image, if the job has written down how its model takes pictures.
"""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pinhole.explorer.assets import PAGE
from pinhole.jobs.pictures import to_image_spec
from serve.bundle.errors import InvalidImage, RequestError
from serve.bundle.framing import frame
from serve.bundle.ink import LARGEST_SIDE
from serve.bundle.limits import MAX_IMAGE_PIXELS
from serve.bundle.manifest import ImageSpec
from serve.bundle.pictures.reading import open_picture

HERE = Path(__file__).parent

# The explorer's modules that the atlas uses, in the order of their imports.
MODULES = (
    "pace.js",
    "palette.js",
    "plane.js",
    "points.js",
    "dots.js",
    "legend.js",
    "axis.js",
    "zoom.js",
    "map.js",
)

# What atlas.html has near its beginning, so that ``pinhole atlas`` may replace its own pages.
MARK = b'<meta name="generator" content="pinhole atlas">'

# Under these keys of the metadata a job writes its source, and how its model takes pictures.
SOURCE_KEY, IMAGE_KEY = b"pinhole.source", b"pinhole.image"
DECIMALS = 4  # Of the embeddings in the page: finer than a pixel of any screen.
MAX_POINTS = 100_000  # A canvas still pans that many smoothly, and mail still carries the file.
THUMBNAIL_PX = 48
WEBP_QUALITY = 70
MAX_THUMBNAILS_BYTES = 24 * 2**20  # All thumbnails together; base64 adds a third.


class UnfitTable(Exception):
    """The file holds no embeddings."""


@dataclass(frozen=True)
class Embeddings:
    """The result of a job.

    Attributes:
        paths: of the images, as the job wrote them.
        vectors: float32[N, D].
        failed: number of rows without an embedding.
        left_out: number of rows beyond MAX_POINTS.
        source: what the job read; None if the file doesn't say.
        image: the pictures that the model takes; None if the file doesn't say.
    """

    paths: list[str]
    vectors: NDArray[np.float32]
    failed: int
    left_out: int
    source: str | None
    image: ImageSpec | None


@dataclass(frozen=True)
class Atlas:
    """A page, and what is in it.

    Attributes:
        page: HTML.
        points: number of points.
        thumbnails: number of points that have a thumbnail.
        failed: number of the job's rows without an embedding.
        left_out: number of rows beyond MAX_POINTS.
        source: the folder whose images were made into thumbnails; None if there is none.
        seen: whether the thumbnails show what the model saw, not the whole files.
    """

    page: str
    points: int
    thumbnails: int
    failed: int
    left_out: int
    source: Path | None
    seen: bool


def make_atlas(table: Path, images: Path | None) -> Atlas:
    """Make the page of a Parquet file of embeddings.

    Args:
        table: with the columns ``path`` and ``embedding``, as ``pinhole embed`` writes them.
        images: the folder that the paths are relative to; None takes the job's own source.

    Raises:
        UnfitTable: it can't be read, or lacks these columns, or holds not a single embedding.
        OSError: the file can't be opened.
    """
    found = read_embeddings(table)
    source = images or (Path(found.source) if found.source else None)
    folder = source if source and source.is_dir() else None
    thumbnails = list(make_thumbnails(folder, found.paths, found.image)) if folder else []
    data = {
        "title": table.stem,
        "paths": found.paths,
        "embeddings": found.vectors.astype(float).round(DECIMALS).tolist(),
        "labels": label_by_folder(found.paths),
        "thumbnails": thumbnails,
        "seen": found.image is not None,
    }
    shown = sum(thumbnail != "" for thumbnail in thumbnails)
    return Atlas(
        page=write_page(table.stem, data),
        points=len(found.paths),
        thumbnails=shown,
        failed=found.failed,
        left_out=found.left_out,
        source=folder,
        seen=found.image is not None,
    )


def read_embeddings(table: Path) -> Embeddings:
    """The rows that have an embedding.

    Raises:
        UnfitTable: as make_atlas.
    """
    try:
        # pyarrow would take a name such as run:1.parquet for a URI, so it is given an open file.
        with table.open("rb") as opened, pq.ParquetFile(opened) as file:
            columns: Any = file.read(["path", "embedding"])
            metadata = file.schema_arrow.metadata or {}
        good = columns.filter(columns["embedding"].is_valid())
        kept = good.slice(0, MAX_POINTS)
        width = len(kept["embedding"][0])
        numbers = pc.list_flatten(kept["embedding"])
        vectors = np.asarray(numbers, np.float32).reshape(-1, width)
    except (pa.ArrowException, LookupError, ValueError) as error:
        raise UnfitTable(
            f"{table} holds no embeddings: it is not a result of pinhole embed"
        ) from error
    source = metadata.get(SOURCE_KEY)
    return Embeddings(
        kept["path"].to_pylist(),
        vectors,
        columns.num_rows - good.num_rows,
        good.num_rows - kept.num_rows,
        source.decode() if source else None,
        to_image_spec(json.loads(metadata.get(IMAGE_KEY, b"null"))),
    )


def label_by_folder(paths: list[str]) -> list[str]:
    """The first folder of each path, which in most datasets is the image's class."""
    return [path.split("/")[0] if "/" in path else "" for path in paths]


def make_thumbnails(folder: Path, paths: list[str], image: ImageSpec | None) -> Iterator[str]:
    """Yield a small WebP of each image in base64, or "" if it can't be made or room is used up."""
    left_bytes = MAX_THUMBNAILS_BYTES
    root = folder.resolve()
    for path in paths:
        thumbnail = make_thumbnail(root, path, image) if left_bytes > 0 else b""
        left_bytes -= len(thumbnail)
        yield base64.b64encode(thumbnail).decode()


def make_thumbnail(root: Path, path: str, image: ImageSpec | None) -> bytes:
    """A small copy of an image as WebP; b"" if it can't be read or lies outside the root."""
    place = (root / path).resolve()
    if not place.is_relative_to(root) or not place.is_file():
        return b""
    try:
        picture = read_picture(place.read_bytes(), image)
    except (OSError, RequestError):
        return b""
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    small = io.BytesIO()
    picture.save(small, "WEBP", quality=WEBP_QUALITY)
    return small.getvalue()


def read_picture(data: bytes, image: ImageSpec | None) -> Image.Image:
    """What the model saw of a file, or the whole picture if that isn't known or has no ink.

    Raises:
        InvalidImage: it can't be read.
    """
    if image:
        with suppress(InvalidImage):
            at_least = max(image.width, image.height, LARGEST_SIDE)  # As serving reads it.
            return Image.fromarray(frame(open_picture(data, check_pixels, at_least), image))
    return open_picture(data, check_pixels, THUMBNAIL_PX)


def check_pixels(width: int, height: int) -> None:
    """Raise InvalidImage for a picture that serving would refuse for its size."""
    if width * height > MAX_IMAGE_PIXELS:
        raise InvalidImage(f"{width} x {height} pixels; the limit is {MAX_IMAGE_PIXELS:,}")


def write_page(title: str, data: dict[str, Any]) -> str:
    """The page, with a content security policy that allows its own scripts only."""
    style = (PAGE / "style.css").read_text("utf-8") + (HERE / "atlas.css").read_text("utf-8")
    script = program()
    parts = {
        "title": html.escape(title),
        "style": style,
        # A script element ends at "</", and "<!--" changes how it is read; so no "<" is left.
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        "program": script,
        "script_sum": sum_of(script),
        "style_sum": sum_of(style),
    }
    template = (HERE / "atlas.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def program() -> str:
    """All modules joined into one script, without their imports and exports.

    Browsers load no modules from file://.
    """
    sources = [(PAGE / name).read_text("utf-8") for name in MODULES]
    sources.append((HERE / "atlas.js").read_text("utf-8"))
    joined = "\n".join(sources)
    without = re.sub(r"^import [^;]+;\n", "", joined, flags=re.MULTILINE)
    return re.sub(r"^export ", "", without, flags=re.MULTILINE)


def sum_of(text: str) -> str:
    """The hash of an inline script or style, as a content security policy has it (CSP Level 3)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
