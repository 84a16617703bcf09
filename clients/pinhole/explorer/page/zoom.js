/** Pan and zoom: a mouse drags and turns its wheel; two fingers drag and pinch. */

const LIMITS = [0.6, 60];
const GLIDE_MS = 250;
const DRAG_PX = 3; // A mouse that moves less between press and release clicks.
const TURN_MS = 150; // Two turns of the wheel within this time are one movement of the hand.
const WHEEL = [0.002, 0.05, 1]; // Powers of two for each pixel, line or page (WheelEvent.deltaMode).

/**
 * A pixel p of the unzoomed map is shown at k * p + x (or y).
 *
 * Events: "zoom" when the transform has changed.
 */
export class Zoom extends EventTarget {
  transform = { k: 1, x: 0, y: 0 };
  #held = new Map(); // The pointers that are pressed: id → place.
  #before = null; // The transform and the pointers' places when the last pointer came or went.
  #dragged = false;
  #turned = -Infinity;
  #frame = 0;

  /** @param {HTMLElement} root buttons within it keep their events */
  constructor(root) {
    super();
    this.root = root;
    root.addEventListener("pointerdown", (event) => this.#press(event));
    root.addEventListener("pointermove", (event) => this.#drag(event));
    root.addEventListener("pointerup", (event) => this.#release(event));
    root.addEventListener("pointercancel", (event) => this.#release(event));
    root.addEventListener("wheel", (event) => this.#turn(event), { passive: false });
    root.addEventListener("click", (event) => this.#click(event), { capture: true });
  }

  /** Zoom by a factor, with the place of the screen that stays where it is. */
  by(factor, place) {
    this.to(moved(this.transform, this.transform.k * factor, place, place));
  }

  /** Change to a transform at once. */
  jump(transform) {
    cancelAnimationFrame(this.#frame);
    this.#set(transform);
  }

  /** Change to a transform smoothly, or at once if the user prefers reduced motion. */
  to(transform) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return this.jump(transform);
    cancelAnimationFrame(this.#frame);
    const [from, started] = [this.transform, performance.now()];
    const step = (now) => {
      const t = Math.min(Math.max((now - started) / GLIDE_MS, 0), 1);
      const part = t * t * (3 - 2 * t);
      const mix = (key) => from[key] * (1 - part) + transform[key] * part;
      this.#set({ k: mix("k"), x: mix("x"), y: mix("y") });
      if (t < 1) this.#frame = requestAnimationFrame(step);
    };
    this.#frame = requestAnimationFrame(step);
  }

  #set(transform) {
    this.transform = transform;
    this.dispatchEvent(new Event("zoom"));
  }

  #press(event) {
    if (event.target.closest("button") || event.button || event.ctrlKey) return;
    this.root.setPointerCapture(event.pointerId); // A drag goes on outside the map.
    this.#held.set(event.pointerId, placeOf(event, this.root));
    this.#begin();
  }

  #release(event) {
    if (!this.#held.delete(event.pointerId)) return;
    this.#begin();
    setTimeout(() => (this.#dragged = false)); // After the click that ends the drag.
  }

  #begin() {
    cancelAnimationFrame(this.#frame);
    this.#before = { transform: this.transform, places: this.#places };
  }

  get #places() {
    return [...this.#held.values()].slice(0, 2);
  }

  #drag(event) {
    if (!this.#held.has(event.pointerId)) return;
    this.#held.set(event.pointerId, placeOf(event, this.root));
    const { transform, places } = this.#before;
    if (event.pointerType !== "mouse" && places.length < 2) return; // One finger explores.
    const [from, to] = [middle(places), middle(this.#places)];
    this.#dragged ||= places.length > 1 || distance([from, to]) >= DRAG_PX;
    if (!this.#dragged) return;
    const k = transform.k * (distance(this.#places) / distance(places));
    this.#set(moved(transform, k, from, to));
  }

  #turn(event) {
    if (event.target.closest("button")) return;
    const place = placeOf(event, this.root);
    const power = -event.deltaY * WHEEL[event.deltaMode] * (event.ctrlKey ? 10 : 1); // Ctrl: a pinch.
    const next = moved(this.transform, this.transform.k * 2 ** power, place, place);
    // At a limit the wheel scrolls the page, unless the same movement of the hand came to the limit.
    if (next.k === this.transform.k && event.timeStamp - this.#turned > TURN_MS) return;
    event.preventDefault();
    this.#turned = event.timeStamp;
    this.jump(next);
  }

  #click(event) {
    if (this.#dragged) event.stopImmediatePropagation();
  }
}

/** [left, top] of a pointer within an element, in CSS pixels. */
export function placeOf(event, element) {
  const box = element.getBoundingClientRect();
  return [event.clientX - box.left - element.clientLeft, event.clientY - box.top - element.clientTop];
}

/** The transform of scale k, within the limits, that shows at `to` what was shown at `from`. */
function moved(transform, k, from, to) {
  const bounded = Math.min(Math.max(k, LIMITS[0]), LIMITS[1]);
  const factor = bounded / transform.k;
  const [x, y] = ["x", "y"].map((key, d) => to[d] - (from[d] - transform[key]) * factor);
  return { k: bounded, x, y };
}

/** The distance of two places; 1 if there is one place only. */
function distance([one, other]) {
  return (other && Math.hypot(other[0] - one[0], other[1] - one[1])) || 1;
}

function middle(places) {
  const sum = (d) => places.reduce((total, place) => total + place[d], 0);
  return [sum(0) / places.length, sum(1) / places.length];
}
