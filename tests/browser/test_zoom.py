"""The map's pan and zoom, by mouse and by fingers; each gesture ends with the whole map again."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from .conftest import Visit
from .gestures import at, hover, hover_until_shown, numbers, picture, wait_for_change

DOTS = "#map canvas.dots"

Touch = Callable[..., None]


@pytest.fixture
def phone(explorer: str, visit: Visit) -> Page:
    """The explorer on a phone, with the map in sight."""
    page = visit(explorer, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.locator("#map").scroll_into_view_if_needed()
    return page


@pytest.fixture
def touch(phone: Page) -> Touch:
    """Sends a touch event, with the places on the map of all fingers that are on the screen."""
    session = phone.context.new_cdp_session(phone)

    def send(kind: str, *places: tuple[float, float]) -> None:
        points = [at(phone.locator("#map"), *place) for place in places]
        fingers = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    return send


def test_a_drag_carries_the_map(explorer: str, visit: Visit) -> None:
    """What was under the mouse stays under it, and releasing the mouse sets no pin."""
    page = visit(explorer)
    whole = picture(page, DOTS)
    before = hover_until_shown(page, 0.3, 0.4)

    page.mouse.down()
    hover(page, 0.5, 0.6)
    page.mouse.up()

    wait_for_change(page, DOTS, whole)
    hover(page, 0.3, 0.4)
    expect(page.locator("#lens output")).not_to_have_text(before)
    hover(page, 0.5, 0.6)
    expect(page.locator("#lens output")).to_have_text(before)
    expect(page.locator(".pin")).to_have_count(0)


def test_a_hand_that_shakes_still_clicks(explorer: str, visit: Visit) -> None:
    """A mouse that moves by a pixel while it is pressed sets a pin and leaves the map in place."""
    page = visit(explorer)
    whole = picture(page, DOTS)
    x, y = at(page.locator("#map"), 0.3, 0.4)
    page.mouse.move(x, y)

    page.mouse.down()
    page.mouse.move(x + 1, y)
    page.mouse.up()

    expect(page.locator(".pin")).to_have_count(1)
    assert picture(page, DOTS) == whole


def test_two_fingers_zoom(phone: Page, touch: Touch) -> None:
    """Two fingers that spread enlarge the map; no pin is set; the whole map comes back."""
    whole = picture(phone, DOTS)

    touch("touchStart", (0.4, 0.5))
    touch("touchStart", (0.4, 0.5), (0.6, 0.5))
    touch("touchMove", (0.2, 0.5), (0.8, 0.5))
    touch("touchEnd")

    wait_for_change(phone, DOTS, whole)
    expect(phone.locator(".pin")).to_have_count(0)
    phone.locator("#whole").tap()
    phone.wait_for_function(
        f"before => document.querySelector('{DOTS}').toDataURL() === before", arg=whole
    )


def test_one_finger_explores(phone: Page, touch: Touch) -> None:
    """One finger moves the crosshair, and leaves the map in place."""
    before, whole = numbers(phone), picture(phone, DOTS)

    touch("touchStart", (0.3, 0.4))
    touch("touchMove", (0.6, 0.6))
    touch("touchEnd")

    expect(phone.locator("#lens output")).not_to_have_text(before)
    assert picture(phone, DOTS) == whole


def test_zoom_glides(explorer: str, visit: Visit) -> None:
    """Where motion is welcome, the map passes through other views, and arrives at the whole map."""
    page = visit(explorer, reduced_motion="no-preference")
    whole = picture(page, DOTS)
    hover(page, 0.5, 0.5)
    page.mouse.wheel(0, -400)
    wait_for_change(page, DOTS, whole)
    page.evaluate(
        f"""() => {{
            window.views = new Set();
            const look = () => {{
                views.add(document.querySelector('{DOTS}').toDataURL());
                requestAnimationFrame(look);
            }};
            look();
        }}"""
    )

    page.click("#whole")

    page.wait_for_function(
        f"before => document.querySelector('{DOTS}').toDataURL() === before", arg=whole
    )
    assert page.evaluate("views.size") > 2  # the nearer view, the whole map, and some between


@pytest.mark.parametrize(
    ("domain", "expected"),
    [("[0, 10]", [0, 2, 4, 6, 8, 10]), ("[-0.3, 0.25]", [-0.3, -0.2, -0.1, 0, 0.1, 0.2])],
)
def test_axes_have_round_numbers(
    explorer: str, visit: Visit, domain: str, expected: list[float]
) -> None:
    """About as many ticks as asked for, within the axis; pixels become numbers and pixels again."""
    page = visit(explorer)

    ticks, there_and_back = page.evaluate(
        f"""async () => {{
          const {{ axis }} = await import("./axis.js");
          const zoomed = axis({domain}, [300, 0]).zoomed(2, -40);
          return [axis({domain}, [300, 0]).ticks(5), zoomed(zoomed.invert(123))];
        }}"""
    )

    assert ticks == pytest.approx(expected)
    assert there_and_back == pytest.approx(123)
