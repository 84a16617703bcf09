"""Movements and clicks on the page, and what its canvases show."""

from playwright.sync_api import Locator, Page

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


def overflow(page: Page) -> int:
    """How many pixels wider than the window the page is."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wider
