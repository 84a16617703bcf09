"""What the page makes of the user's drawings and files."""

import io
import re

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from ..e2e.conftest import wait_until
from .conftest import WAIT_S, Visit, Watch
from .gestures import (
    SCRIBBLE,
    SEVEN,
    SEVEN_PNG,
    draw,
    ink,
    numbers,
    overflow,
    picture,
    read_png,
    wait_for_change,
)

DROP = """([files]) => {
  const carried = new DataTransfer();
  for (const [name, type, bytes] of files)
    carried.items.add(new File([Uint8Array.from(bytes)], name, {type}));
  for (const kind of ["dragover", "drop"])
    document.body.dispatchEvent(
      new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));
}"""


# Keeps in ``sent`` the newest file that the page has sent, as a data URL.
KEEP_FILE = """() => {
  const fetch = window.fetch;
  window.fetch = (path, request) => {
    if (request?.body instanceof Blob) {
      const reader = new FileReader();
      reader.onload = () => (window.sent = reader.result);
      reader.readAsDataURL(request.body);
    }
    return fetch(path, request);
  };
}"""


def photograph() -> bytes:
    """A dark seven, small in the corner of a large light page; a JPEG file."""
    page = Image.new("RGB", (900, 700), (236, 231, 219))
    seven = [(620 + 160 * x, 40 + 160 * y) for x, y in SEVEN]
    ImageDraw.Draw(page).line(seven, (38, 44, 92), width=11, joint="curve")
    file = io.BytesIO()
    page.save(file, "JPEG")
    return file.getvalue()


def test_a_drawn_seven_lands_among_sevens(explorer: str, visit: Visit) -> None:
    """Nine or ten of the ten nearest labelled points are sevens, and it is no outlier."""
    page = visit(explorer)
    empty = picture(page, "#remembered")
    expect(page.locator("#live")).not_to_be_empty()  # Else it would replace the drawing's words.

    draw(page, SEVEN)

    expect(page.locator("#verdict")).to_have_text(re.compile("among 7s: (9|10) of its 10"))
    expect(page.locator("#verdict")).to_have_text(re.compile(r"mse 0\.\d{4}"))
    expect(page.locator("#verdict .outlier")).to_have_count(0)
    assert picture(page, "#remembered") != empty
    expect(page.locator("#live")).to_have_text(re.compile("Your drawing is at"))


@pytest.mark.parametrize(
    ("size", "left", "top"),
    [(0.35, 0.6, 0.05), (0.35, 0, 0.6), (0.6, 0.3, 0.4), (1.3, -0.15, -0.2)],
)
def test_a_seven_of_any_size_anywhere(
    explorer: str, visit: Visit, size: float, left: float, top: float
) -> None:
    """The service finds the ink on the pad's picture, and the page shows the 28 x 28 it made."""
    page = visit(explorer)

    draw(page, [(left + size * x, top + size * y) for x, y in SEVEN])

    expect(page.locator("#verdict")).to_contain_text("among 7s")
    seen = ink(page.locator("#seen"))
    assert seen.shape == (28, 28)
    assert longer_side(seen) in (19, 20)  # The digit's box is 20 pixels high, edges included.


def longer_side(drawn: NDArray[np.uint8]) -> int:
    """The height or width, in pixels, of what is drawn."""
    rows, columns = np.nonzero(drawn > 64)
    return int(max(np.ptp(rows), np.ptp(columns))) + 1


def test_what_is_on_the_pad_is_sent(explorer: str, visit: Visit) -> None:
    """The file has the pad's strokes in white on black, as they are on the pad."""
    page = visit(explorer)
    page.evaluate(KEEP_FILE)

    draw(page, SEVEN)
    pad = Image.fromarray(ink(page.locator("#pad"))).resize((280, 280))

    def is_sent() -> bool:
        sent = np.asarray(read_png(page.evaluate("sent"))[..., 0], float)
        # They differ along the strokes' edges.
        return sent.shape == (280, 280) and np.abs(sent - pad).mean() < 0.1 * sent.mean()

    page.wait_for_function("window.sent")
    assert wait_until(is_sent, WAIT_S)


def test_a_dot(explorer: str, visit: Visit) -> None:
    """A tap on the pad leaves a dot there, which the model is shown."""
    page = visit(explorer)
    blank = picture(page, "#seen")

    page.click("#pad")

    wait_for_change(page, "#seen", blank)
    assert ink(page.locator("#pad")).any()


def test_a_pad_without_ink(explorer: str, visit: Visit, watch: Watch) -> None:
    """Painted white all over, the pad has no ink: the page says so, and shows no older answer."""
    watch.allowed = ["400"]
    page = visit(explorer)
    rows = [(x, y / 30) for y in range(31) for x in ((0, 1) if y % 2 else (1, 0))]

    draw(page, [(0.5, 0.01), *rows])

    expect(page.locator("#verdict")).to_contain_text("no ink found")
    assert wait_until(lambda: not ink(page.locator("#seen")).any(), WAIT_S)
    page.click("#clear")
    draw(page, SEVEN)
    expect(page.locator("#verdict")).to_contain_text("among 7s")


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


@pytest.mark.parametrize("key", ["Backspace", "Delete"])
def test_undo_lifts_the_pen(explorer: str, visit: Visit, key: str) -> None:
    """Arrows after it draw nothing, and change no older stroke."""
    page = visit(explorer)
    draw(page, SEVEN)
    before = picture(page, "#pad")
    page.locator("#pad").focus()
    for press in (" ", "ArrowDown", "ArrowDown", key, "ArrowRight", "ArrowRight"):
        page.keyboard.press(press)
    page.locator("#pad").blur()

    after = ink(page.locator("#pad"))
    assert picture(page, "#pad") == before if key == "Backspace" else not after.any()


def test_one_pointer_draws(explorer: str, visit: Visit) -> None:
    """A palm on the pad beside the pen leaves nothing, and ends nothing when it is lifted."""
    page = visit(explorer, has_touch=True)
    page.evaluate("""() => {
      const pad = document.querySelector("#pad");
      pad.setPointerCapture = () => {};
      const { left, top, width } = pad.getBoundingClientRect();
      const send = (name, pointerType, x) => {
        const pointerId = pointerType === "pen" ? 1 : 2;
        const place = { clientX: left + x * width, clientY: top + width / 2 };
        const init = { pointerId, pointerType, isPrimary: true, ...place };
        const coalescedEvents = [new PointerEvent(name, init)]; // a browser's own events have them
        pad.dispatchEvent(new PointerEvent(name, { ...init, coalescedEvents }));
      };
      send("pointerdown", "pen", 0.2);
      send("pointerdown", "touch", 0.9);
      send("pointermove", "touch", 0.95);
      send("pointerup", "touch", 0.95);
      send("pointermove", "pen", 0.5);
      send("pointerup", "pen", 0.5);
      send("pointermove", "pen", 0.8);
    }""")

    columns = np.nonzero(ink(page.locator("#pad")).any(axis=0))[0]
    side = page.locator("#pad").evaluate("pad => pad.width")
    assert columns.max() / side == pytest.approx(0.5, abs=0.05)


def test_a_row_shows_its_place(explorer: str, visit: Visit) -> None:
    """Its dot is panned to and has the crosshair, even while the page shows itself."""
    page = visit(explorer, reduced_motion="no-preference")
    page.set_input_files("#files input", SEVEN_PNG)
    row = page.locator("#files li")
    expect(row).to_contain_text("among 7s")
    row.get_by_role("button").click()
    page.wait_for_timeout(1_500)  # the tour would have gone on
    place = numbers(page)

    for _ in range(6):
        page.click("#closer")
    page.wait_for_timeout(500)
    page.locator("#map").focus()
    for _ in range(6):
        page.keyboard.press("Shift+ArrowRight")
    page.click("#whole")
    for _ in range(9):
        page.click("#closer")
    page.wait_for_timeout(500)
    row.get_by_role("button").click()

    expect(page.locator("#lens output")).to_have_text(place)
    box, shown = page.locator("#map").bounding_box(), page.locator("#lens").bounding_box()
    assert box is not None
    assert shown is not None
    assert box["x"] <= shown["x"] <= box["x"] + box["width"]
    assert box["y"] <= shown["y"] <= box["y"] + box["height"]


def test_a_dropped_folder(explorer: str, visit: Visit) -> None:
    """What the browser can't read is refused in its row; the service isn't called down."""
    page = visit(explorer)
    page.evaluate("""() => {
      const folder = new File(["x"], "folder");
      const fail = () => Promise.reject(new DOMException("", "NotFoundError"));
      folder.slice = () => ({ arrayBuffer: fail });
      const event = new Event("drop", { cancelable: true });
      event.dataTransfer = { types: ["Files"], files: [folder] };
      window.dispatchEvent(event);
    }""")

    expect(page.locator("#files li")).to_contain_text("drop the files in it")
    expect(page.locator("#status")).to_have_text("live")


def test_dropped_files(explorer: str, visit: Visit, watch: Watch) -> None:
    """A good one becomes a row with its reconstruction; a broken one says why."""
    watch.allowed = ["400"]
    page = visit(explorer)
    files = [
        ["seven.png", "image/png", list(SEVEN_PNG.read_bytes())],
        ["broken.png", "image/png", list(b"not an image")],
        ["empty.png", "image/png", []],
    ]

    page.evaluate(DROP, [files])

    seven = page.locator("#files li", has_text="seven.png")
    expect(seven).to_contain_text("among 7s")
    assert ink(seven.locator(".remembered")).shape == (28, 28)
    broken = page.locator("#files li", has_text="broken.png")
    expect(broken).to_contain_text("12 bytes can't be read as an image")
    expect(page.locator("#files li", has_text="empty.png")).to_contain_text("0 bytes")
    assert overflow(page) <= 0


def test_a_dropped_photograph(explorer: str, visit: Visit) -> None:
    """Beside the whole page stands what the model saw of it: the digit alone, large, centred."""
    page = visit(explorer)

    page.evaluate(DROP, [[["page.jpg", "image/jpeg", list(photograph())]]])

    row = page.locator("#files li")
    expect(row).to_contain_text("among 7s")
    seen = ink(row.locator(".seen"))
    assert ink(row.locator(".file")).shape == (74, 96)
    assert longer_side(seen) in (19, 20)
    assert np.argwhere(seen > 64).mean(0) == pytest.approx([14, 14], abs=1)
    expect(row.get_by_title("what the model saw")).to_be_visible()


def test_chosen_files(explorer: str, visit: Visit) -> None:
    """Files can be chosen in a dialog, without dragging."""
    page = visit(explorer)

    page.set_input_files("#files input", SEVEN_PNG)

    expect(page.locator("#files li")).to_contain_text("among 7s")
