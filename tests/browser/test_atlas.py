"""An atlas, opened as the file it is."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from playwright.sync_api import expect

from pinhole.cli import main

from .conftest import Visit
from .gestures import at


def test_atlas_opens_from_disk(tmp_path: Path, visit: Visit) -> None:
    """Two points: pointing at one shows its image and path; its own policy holds."""
    embeddings = pa.array([[0.0, 0.0], [1.0, 1.0]], pa.list_(pa.float32(), 2))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (60, 60), "teal").save(tmp_path / name / "<script>.png")
    paths = ["one/<script>.png", "two/<script>.png"]
    pq.write_table(pa.table({"path": paths, "embedding": embeddings}), tmp_path / "job.parquet")
    out = tmp_path / "job.html"
    arguments = ["atlas", str(tmp_path / "job.parquet"), "--out", str(out)]
    assert main([*arguments, "--images", str(tmp_path)]) == 0

    page = visit(out.as_uri(), wait=False)

    expect(page.locator("#lead")).to_have_text(re.compile("^2 images"))
    page.mouse.move(*at(page.locator("#map"), 0.06, 0.94))
    expect(page.locator("#lens")).to_be_visible()
    expect(page.locator("#lens figcaption")).to_have_text("one/<script>.png")
    expect(page.locator("#lens img")).to_have_js_property("naturalWidth", 48)
    expect(page.get_by_role("button", name="two")).to_be_visible()


def test_atlas_without_pictures(tmp_path: Path, visit: Visit) -> None:
    """Where the images are gone, the page promises paths only."""
    embeddings = pa.array([[0.0, 0.0], [1.0, 1.0]], pa.list_(pa.float32(), 2))
    rows = pa.table({"path": ["gone.png", "lost.png"], "embedding": embeddings})
    pq.write_table(rows, tmp_path / "job.parquet")
    out = tmp_path / "job.html"
    arguments = ["atlas", str(tmp_path / "job.parquet"), "--out", str(out)]
    assert main([*arguments, "--images", str(tmp_path)]) == 0

    page = visit(out.as_uri(), wait=False)

    expect(page.locator("#lead")).to_contain_text("to see its path: no image could be read.")
