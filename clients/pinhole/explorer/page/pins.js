/** Pins on the map, and for two pins the row of pictures that leads from one to the other. */

import { written } from "./lens.js";
import { STEPS } from "./map.js";
import { latest } from "./pace.js";
import { paint } from "./paint.js";
import { between } from "./plane.js";
import { tolerate } from "./service.js";

const ROW_PICTURES = 11; // Pictures in the row, including those of the two pins.
const NUDGE_PX = 8; // An arrow key moves a pin this far.

export class Pins {
  /** @type {{place: [number, number], button: HTMLButtonElement}[]} */
  pins = [];

  /**
    * @param {HTMLElement} root holds the pins
   * @param {HTMLElement} strip
   * @param {object} world
   */
  constructor(root, strip, world) {
    this.root = root;
    this.strip = strip;
    this.world = world;
    this.refresh = latest(() => this.#decode());
    world.map.addEventListener("pick", () => this.add(world.map.place));
    world.map.addEventListener("view", () => this.#placeButtons());
    world.map.root.addEventListener("keydown", (event) => event.key === "Escape" && this.clear());
    strip.querySelector("button").addEventListener("click", () => this.clear());
  }

  get places() {
    return this.pins.map((pin) => pin.place);
  }

  /** Pin a place; if there are two pins already, the older pin is removed. */
  add(place) {
    if (!place) return;
    if (this.pins.length === 2) this.pins.shift().button.remove();
    const button = document.createElement("button");
    button.className = "pin";
    button.append(document.createElement("canvas"));
    const pin = { place, button };
    this.pins.push(pin);
    this.root.append(button);
    this.#listen(pin);
    this.#changed();
    this.world.say(this.pins.length === 2 ? "Two pins: the row between them is below" : "Pinned");
  }

  remove(pin) {
    this.pins = this.pins.filter((other) => other !== pin);
    pin.button.remove();
    this.world.map.root.focus({ preventScroll: true });
    this.#changed();
  }

  clear() {
    for (const pin of [...this.pins]) this.remove(pin);
  }

  #listen(pin) {
    const { map } = this.world;
    const { button } = pin;
    let held = null; // Offset of the pointer from the pin while it drags the pin.
    button.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      button.setPointerCapture(event.pointerId);
      held = [event.clientX - map.x(pin.place[0]), event.clientY - map.y(pin.place[1])];
    });
    for (const name of ["pointerup", "pointercancel"]) button.addEventListener(name, () => (held = null));
    button.addEventListener("pointermove", (event) => {
      if (held) this.#move(pin, [event.clientX - held[0], event.clientY - held[1]]);
    });
    button.addEventListener("dblclick", () => this.remove(pin));
    button.addEventListener("keydown", (event) => this.#key(event, pin));
  }

  #key(event, pin) {
    const { map } = this.world;
    if (event.key === "Delete" || event.key === "Backspace") this.remove(pin);
    else if (event.key in STEPS) {
      const [right, down] = STEPS[event.key].map((step) => step * NUDGE_PX);
      this.#move(pin, [map.x(pin.place[0]) + right, map.y(pin.place[1]) + down]);
    } else return;
    event.preventDefault();
  }

  #move(pin, [left, top]) {
    const { map } = this.world;
    pin.place = [map.x.invert(left), map.y.invert(top)];
    this.#changed();
  }

  #changed() {
    this.#placeButtons();
    this.world.marks.draw();
    this.strip.hidden = this.pins.length < 2;
    this.refresh();
  }

  #placeButtons() {
    const { map, plane, points } = this.world;
    this.pins.forEach(({ place: [x, y], button }, index) => {
      button.style.transform = `translate(${map.x(x)}px, ${map.y(y)}px)`;
      const where = written(plane.embedding([x, y]), [x, y], points.digits);
      button.setAttribute("aria-label", `Pin ${index + 1} at ${where}. Arrows move it, Delete removes it.`);
    });
  }

  /** Decode the pins' pictures, and those between two pins, in one request. */
  async #decode() {
    const { service, plane, image } = this.world;
    const pins = [...this.pins];
    if (!pins.length || service.down) return;
    const [from, to] = [pins[0].place, pins.at(-1).place];
    const places = Array.from({ length: pins.length === 2 ? ROW_PICTURES : 1 }, (_, index) =>
      between(from, to, index / (ROW_PICTURES - 1)),
    );
    try {
      const pictures = await service.decode(places.map((place) => plane.embedding(place)));
      paint(pins[0].button.querySelector("canvas"), pictures[0], image);
      paint(pins.at(-1).button.querySelector("canvas"), pictures.at(-1), image);
      if (pins.length === 2) this.#fill(pictures);
    } catch (error) {
      tolerate(error); // The status line shows the outage; the "up" event repeats the request.
    }
  }

  #fill(pictures) {
    const row = this.strip.querySelector("ol");
    while (row.children.length < pictures.length) {
      row.append(document.createElement("li"));
      row.lastChild.append(document.createElement("canvas"));
    }
    pictures.forEach((pixels, index) => {
      paint(row.children[index].firstChild, pixels, this.world.image);
    });
  }
}
