"""Movements and clicks on the page, and what its canvases show."""

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Locator, Page, expect

SEVEN_PNG = Path(__file__).parents[2] / "clients" / "examples" / "seven.png"
# A seven in unit coordinates: a bar, then a slanted leg.
SEVEN = [(0.25, 0.25), (0.5, 0.24), (0.74, 0.25), (0.64, 0.45), (0.53, 0.66), (0.45, 0.86)]
SCRIBBLE = [(0.05, 0.05), (0.95, 0.95), (0.95, 0.05), (0.05, 0.95), (0.05, 0.05), (0.95, 0.05)]


def at(area: Locator, x: float, y: float) -> tuple[float, float]:
    """A place within an element, in the window's pixels."""
    box = area.bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """One stroke on the pad."""
    pad = page.locator("#pad")
    pad.scroll_into_view_if_needed()
    page.mouse.move(*at(pad, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*at(pad, *point), steps=4)
    page.mouse.up()


def hover(page: Page, x: float, y: float) -> None:
    """Put the pointer somewhere on the map."""
    page.mouse.move(*at(page.locator("#map"), x, y))


def pick(page: Page, x: float, y: float) -> None:
    """Click somewhere on the map."""
    page.mouse.click(*at(page.locator("#map"), x, y))


def numbers(page: Page) -> str:
    """The numbers beside the crosshair, once there are any."""
    expect(page.locator("#lens output")).not_to_be_empty()
    return page.locator("#lens output").inner_text()


def ink(canvas: Locator) -> NDArray[np.uint8]:
    """How opaque each pixel of a canvas is: uint8[H, W]."""
    url: str = canvas.evaluate("canvas => canvas.toDataURL()")
    return read_png(url)[..., 3]


def read_png(url: str) -> NDArray[np.uint8]:
    """The pixels of a data URL: uint8[H, W, 4]."""
    file = io.BytesIO(base64.b64decode(url.partition(",")[2]))
    return np.asarray(Image.open(file).convert("RGBA"))


def picture(page: Page, selector: str) -> str:
    """What a canvas shows, as a data URL: equal pictures are equal."""
    shown: str = page.eval_on_selector(selector, "canvas => canvas.toDataURL()")
    return shown


def wait_for_change(page: Page, selector: str, before: str) -> str:
    """What a canvas shows once it no longer shows ``before``."""
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).toDataURL() !== before",
        arg=[selector, before],
    )
    return picture(page, selector)


def hover_until_shown(page: Page, x: float, y: float) -> str:
    """Put the pointer somewhere else on the map; the numbers of that place, once they are shown.

    The page opens with a place of its own, so the first numbers need not be the pointer's.
    """
    before = numbers(page)
    hover(page, x, y)
    expect(page.locator("#lens output")).not_to_have_text(before)
    return numbers(page)


def overflow(page: Page) -> int:
    """How many pixels wider than the window the page is."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wider
