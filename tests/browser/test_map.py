"""The map, used with a mouse, a finger and the keyboard."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from .conftest import Visit, Watch
from .gestures import hover, hover_until_shown, numbers, overflow, pick, picture, wait_for_change

LENS = "#lens canvas"

# Keeps in ``most`` how many of the page's requests were ever under way at the same time.
COUNT_FETCHES = """() => {
  const fetch = window.fetch;
  let underWay = 0;
  window.most = 0;
  window.fetch = async (...request) => {
    window.most = Math.max(window.most, ++underWay);
    try { return await fetch(...request); } finally { underWay--; }
  };
}"""


def test_hovering_decodes(explorer: str, visit: Visit) -> None:
    """The picture and the numbers beside the pointer follow it."""
    page = visit(explorer)
    hover(page, 0.15, 0.4)
    expect(page.locator("#lens output")).to_have_text(re.compile(r"\(−1\.\d\d, [−\d.]+\)"))
    one = picture(page, LENS)

    hover(page, 0.8, 0.3)

    expect(page.locator("#lens output")).to_have_text(re.compile(r"\(1\.\d\d, [−\d.]+\)"))
    assert picture(page, LENS) != one


def test_fast_hands_make_no_queue(explorer: str, visit: Visit) -> None:
    """Two hundred movements: one request under way at a time, and the last place wins."""
    page = visit(explorer)
    place = hover_until_shown(page, 0.5, 0.25)
    hover_until_shown(page, 0.1, 0.5)
    page.evaluate(COUNT_FETCHES)

    for step in range(200):
        hover(page, 0.1 + 0.004 * step, 0.5)
    hover(page, 0.5, 0.25)

    expect(page.locator("#lens output")).to_have_text(place)
    assert page.evaluate("most") == 1


def test_images_move_as_arrays(explorer: str, visit: Visit) -> None:
    """The page sends embeddings and receives pictures as .npy."""
    page = visit(explorer)

    with page.expect_response("**/predictions/decode") as caught:
        hover(page, 0.4, 0.4)

    request = caught.value.request
    assert request.headers["content-type"] == "application/x-npy"
    assert caught.value.headers["content-type"] == "application/x-npy"


def test_two_pins_make_a_row(explorer: str, visit: Visit) -> None:
    """Eleven pictures from one pin to the other; dragging a pin changes them; Clear takes all."""
    page = visit(explorer)
    pick(page, 0.15, 0.4)
    expect(page.locator(".pin")).to_have_count(1)
    expect(page.locator("#strip")).to_be_hidden()
    pick(page, 0.5, 0.3)
    expect(page.locator("#strip li")).to_have_count(11)
    last = picture(page, "#strip li:last-child canvas")
    assert picture(page, "#strip li:first-child canvas") != last

    page.locator(".pin").last.drag_to(page.locator("#map"), target_position={"x": 700, "y": 400})

    wait_for_change(page, "#strip li:last-child canvas", last)
    page.click("#strip button")
    expect(page.locator(".pin")).to_have_count(0)
    expect(page.locator("#strip")).to_be_hidden()


def test_keyboard_alone(explorer: str, visit: Visit) -> None:
    """From the top of the page by Tab: move, zoom, pin twice, clear; told to screen readers."""
    page = visit(explorer)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#map")).to_be_focused()
    before = numbers(page)

    page.keyboard.press("ArrowLeft")
    expect(page.locator("#lens output")).not_to_have_text(before)
    expect(page.locator("#live")).to_have_text(
        re.compile(re.escape(numbers(page)) + r", among \ds")
    )
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+ArrowLeft")
    dots = picture(page, "#map canvas.dots")
    page.keyboard.press("+")
    wait_for_change(page, "#map canvas.dots", dots)
    page.keyboard.press("Enter")
    expect(page.locator("#strip li")).to_have_count(11)
    page.keyboard.press("Escape")
    expect(page.locator(".pin")).to_have_count(0)


def test_pins_move_by_keyboard(explorer: str, visit: Visit) -> None:
    """Arrow keys move a focused pin, and Delete removes it."""
    page = visit(explorer)
    pick(page, 0.5, 0.5)
    pin = page.locator(".pin")
    pin.focus()
    before = pin.get_attribute("aria-label")

    page.keyboard.press("ArrowUp")

    expect(pin).not_to_have_attribute("aria-label", before or "")
    page.keyboard.press("Delete")
    expect(pin).to_have_count(0)


def test_legend_filters(explorer: str, visit: Visit) -> None:
    """With one label chosen, the other points fade; chosen again, all points are back."""
    page = visit(explorer)
    everything = picture(page, "#map canvas.dots")
    seven = page.get_by_role("button", name="7", exact=True)

    seven.click()
    only = wait_for_change(page, "#map canvas.dots", everything)
    expect(seven).to_have_attribute("aria-pressed", "true")
    seven.click()

    assert wait_for_change(page, "#map canvas.dots", only) == everything


def test_zoom_moves_the_points(explorer: str, visit: Visit) -> None:
    """The wheel and the buttons zoom; the whole map comes back."""
    page = visit(explorer)
    whole = picture(page, "#map canvas.dots")
    hover(page, 0.5, 0.5)

    page.mouse.wheel(0, -400)
    wait_for_change(page, "#map canvas.dots", whole)
    page.click("#whole")

    page.wait_for_function(
        "before => document.querySelector('#map canvas.dots').toDataURL() === before", arg=whole
    )


def test_manifold_fills_and_saves(explorer: str, visit: Visit) -> None:
    """The grid appears under the points, and comes as a PNG of twice the map's size."""
    page = visit(explorer)
    dots = picture(page, "#map canvas.dots")
    page.click("#pictures")
    wait_for_change(page, "#map canvas.dots", dots)

    with page.expect_download() as caught:
        page.click("#download")

    header = caught.value.path().read_bytes()[:24]
    width = page.eval_on_selector("#map", "map => map.clientWidth")
    assert header.startswith(b"\x89PNG")
    assert int.from_bytes(header[16:20]) == 2 * width


def test_what_is_saved_is_what_is_seen(explorer: str, visit: Visit, watch: Watch) -> None:
    """Zoomed out, the PNG has pictures up to its edges; where there are none, nothing is saved."""
    watch.allowed = ["503"]
    page = visit(explorer)
    for _ in range(2):
        with page.expect_download() as caught:
            page.click("#download")
        sheet = np.asarray(Image.open(caught.value.path()).convert("L"))
        assert sheet[:, : sheet.shape[1] // 10].std() > 0
        page.click("#farther")

    page.route("**/predictions/decode", lambda route: route.fulfill(status=503))
    page.click("#download")
    for place in ("#live", "#note"):
        expect(page.locator(place)).to_have_text("Nothing saved: the service gave no pictures.")


def test_the_lens_stays_on_a_low_map(explorer: str, visit: Visit) -> None:
    """In a short window there is no room above the pointer, nor below it."""
    page = visit(explorer, viewport={"width": 1366, "height": 650})
    for height in (0.1, 0.3, 0.5, 0.7, 0.9):
        hover(page, 0.5, height)
        inside = page.evaluate("""() => {
          const box = (id) => document.querySelector(id).getBoundingClientRect();
          const [map, lens] = [box("#map"), box("#lens")];
          return lens.top >= map.top && lens.bottom <= map.bottom;
        }""")
        assert inside, height


def test_pins_are_for_the_left_button(explorer: str, visit: Visit) -> None:
    """The right one opens the browser's menu, and drags nothing."""
    page = visit(explorer)
    pick(page, 0.5, 0.5)
    before = page.locator(".pin").bounding_box()
    page.locator(".pin").hover()
    page.mouse.down(button="right")
    hover(page, 0.8, 0.8)
    page.mouse.up(button="right")

    assert page.locator(".pin").bounding_box() == before


@pytest.mark.parametrize("width", [360, 390])
def test_phone(explorer: str, visit: Visit, width: int) -> None:
    """Nothing sticks out, and a tap decodes and pins."""
    page = visit(explorer, viewport={"width": width, "height": 844}, has_touch=True, is_mobile=True)
    before = numbers(page)
    assert overflow(page) <= 0

    page.touchscreen.tap(*centre(page))

    expect(page.locator("#lens output")).not_to_have_text(before)
    expect(page.locator(".pin")).to_have_count(1)
    assert overflow(page) <= 0


def centre(page: Page) -> tuple[float, float]:
    """The middle of the map, in the window's pixels."""
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_page_shows_itself(explorer: str, visit: Visit) -> None:
    """Untouched, the crosshair walks through the map; with reduced motion it stays."""
    moving = visit(explorer, reduced_motion="no-preference")
    start = numbers(moving)
    expect(moving.locator("#lens output")).not_to_have_text(start)
    still = visit(explorer)
    start = numbers(still)

    still.wait_for_timeout(2_500)

    assert numbers(still) == start


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_schemes_differ(explorer: str, visit: Visit, scheme: str) -> None:
    """The page follows the user's scheme, live."""
    page = visit(explorer, color_scheme=scheme)
    before = picture(page, "#map canvas.dots")
    ground = "getComputedStyle(document.body).backgroundColor"
    colour = page.evaluate(ground)

    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")

    wait_for_change(page, "#map canvas.dots", before)
    assert page.evaluate(ground) != colour


def test_numbers_are_the_services_own(explorer: str, visit: Visit) -> None:
    """Digest, version and precision as the service tells; the latency is a number."""
    page = visit(explorer)
    told = json.loads(page.request.get(f"{explorer}v2/models/embed").text())

    hover(page, 0.3, 0.3)

    expect(page.locator("[data-figure=p50]")).to_have_text(re.compile(r"\d+(\.\d)? ms"))
    expect(page.locator("[data-figure=digest]")).to_have_text(told["digest"][:12])
    expect(page.locator("[data-figure=version]")).to_have_text(told["versions"][0])
    expect(page.locator("[data-figure=precision]")).to_have_text(told["precision"])
