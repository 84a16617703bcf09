"""What the page makes of the user's drawings and files."""

import re
from pathlib import Path

from playwright.sync_api import expect

from .conftest import Visit, Watch
from .gestures import SCRIBBLE, SEVEN, draw, overflow, picture

SEVEN_PNG = Path(__file__).parents[2] / "clients" / "examples" / "seven.png"

DROP = """([files]) => {
  const carried = new DataTransfer();
  for (const [name, type, bytes] of files)
    carried.items.add(new File([Uint8Array.from(bytes)], name, {type}));
  for (const kind of ["dragover", "drop"])
    document.body.dispatchEvent(
      new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));
}"""


def test_a_drawn_seven_lands_among_sevens(explorer: str, visit: Visit) -> None:
    """Nine or ten of the ten nearest labelled points are sevens, and it is no outlier."""
    page = visit(explorer)
    empty = picture(page, "#remembered")

    draw(page, SEVEN)

    expect(page.locator("#verdict")).to_have_text(re.compile("among 7s: (9|10) of its 10"))
    expect(page.locator("#verdict")).to_have_text(re.compile(r"mse 0\.\d{4}"))
    expect(page.locator("#verdict .outlier")).to_have_count(0)
    assert picture(page, "#remembered") != empty
    expect(page.locator("#live")).to_have_text(re.compile("Your drawing is at"))


def test_a_small_seven_is_the_same_seven(explorer: str, visit: Visit) -> None:
    """Size and place on the pad don't matter: the ink is fitted and centred as MNIST's was."""
    page = visit(explorer)

    draw(page, [(0.6 + x * 0.35, 0.05 + y * 0.35) for x, y in SEVEN])

    expect(page.locator("#verdict")).to_have_text(re.compile("among 7s: (9|10) of its 10"))


def test_a_scribble_is_called_unseen(explorer: str, visit: Visit) -> None:
    """An outlier has a sentence of its own."""
    page = visit(explorer)

    draw(page, SCRIBBLE)

    expect(page.locator("#verdict .outlier")).to_have_text("It has never seen anything like this.")


def test_undo_and_clear(explorer: str, visit: Visit) -> None:
    """Undo brings back the verdict before; Clear removes everything from page and map."""
    page = visit(explorer)
    marks = picture(page, "#map canvas.marks")
    draw(page, SEVEN)
    expect(page.locator("#verdict")).to_contain_text("among 7s")
    draw(page, SCRIBBLE)
    expect(page.locator("#verdict .outlier")).to_be_visible()

    page.click("#undo")
    expect(page.locator("#verdict")).to_contain_text("among 7s")
    page.click("#clear")

    expect(page.locator("#verdict")).to_be_hidden()
    assert picture(page, "#map canvas.marks") == marks


def test_drawing_by_keyboard(explorer: str, visit: Visit) -> None:
    """Arrows move the pen, Space lowers it: a straight line down is a one."""
    page = visit(explorer)
    page.locator("#pad").focus()
    for _ in range(7):
        page.keyboard.press("ArrowUp")
    page.keyboard.press(" ")
    for _ in range(14):
        page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")

    expect(page.locator("#verdict")).to_contain_text("among 1s")


def test_dropped_files(explorer: str, visit: Visit, watch: Watch) -> None:
    """A good one becomes a row with its reconstruction; a broken one says why."""
    page = visit(explorer)
    files = [
        ["seven.png", "image/png", list(SEVEN_PNG.read_bytes())],
        ["broken.png", "image/png", list(b"not an image")],
        ["empty.png", "image/png", []],
    ]

    page.evaluate(DROP, [files])

    seven = page.locator("#files li", has_text="seven.png")
    expect(seven).to_contain_text("among 7s")
    assert seven.locator(".after").evaluate("canvas => canvas.width") == 28
    broken = page.locator("#files li", has_text="broken.png")
    expect(broken).to_contain_text("12 bytes can't be read as an image")
    expect(page.locator("#files li", has_text="empty.png")).to_contain_text("0 bytes")
    assert overflow(page) <= 0
    assert len(watch.complaints) == 2  # The browser's own lines about the two refusals.
    assert all("400" in line for line in watch.complaints)
    watch.complaints.clear()


def test_chosen_files(explorer: str, visit: Visit) -> None:
    """Files can be chosen in a dialog, without dragging."""
    page = visit(explorer)

    page.set_input_files("#files input", SEVEN_PNG)

    expect(page.locator("#files li")).to_contain_text("among 7s")
