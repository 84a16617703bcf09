/**
 * The map: pan and zoom, a crosshair that the pointer or the arrow keys move, and clicks.
 *
  * Events: "move" when the crosshair has moved; "pick" after a click or Enter; "view" after panning,
  * zooming and resizing; "touched" when the user does anything with the map.
 */

import { axis } from "./axis.js";
import { quantile, sorted } from "./points.js";
import { Zoom, placeOf } from "./zoom.js";

const STEP = 1 / 60; // Part of the map's width that an arrow key moves; ten times that with Shift.
const MARGIN = 0.07; // Part of the points' extent that is left free around them.
const TRIM = 0.004; // Share of the points on each side that may lie outside the first view.
export const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const FACTORS = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, _: 1 / 1.5 };

export class MapView extends EventTarget {
  /** [left, top] in CSS pixels from the map's corner; null before the first movement. */
  crosshair = null;

  /**
   * @param {HTMLElement} root holds canvas.dots and canvas.marks
   * @param {import("./points.js").Points} points
   */
  constructor(root, points) {
    super();
    this.root = root;
    this.extents = [extent(points, 0), extent(points, 1)];
    this.zoom = new Zoom(root);
    this.zoom.addEventListener("zoom", () => this.#changed());
    new ResizeObserver(() => this.#resize()).observe(root);
    this.#resize();
    root.addEventListener("pointermove", (event) => this.#point(event));
    root.addEventListener("pointerdown", (event) => this.#point(event));
    root.addEventListener("click", (event) => this.#click(event));
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("wheel", () => this.#touched(), { passive: true });
  }

  /** The scales and the size, which drawing needs. */
  get view() {
    const { x, y, width, height, zoom } = this;
    return { x, y, width, height, zoom: zoom.transform.k };
  }

  /** The point of the plane under the crosshair. */
  get place() {
    return this.crosshair && [this.x.invert(this.crosshair[0]), this.y.invert(this.crosshair[1])];
  }

  /** Put the crosshair on a point of the plane. */
  moveTo([x, y]) {
    this.crosshair = [this.x(x), this.y(y)];
    this.dispatchEvent(new Event("move"));
  }

  zoomBy(factor) {
    this.zoom.by(factor, this.crosshair ?? [this.width / 2, this.height / 2]);
  }

  reset() {
    this.zoom.to({ k: 1, x: 0, y: 0 });
  }

  /** Put the crosshair on a point of the plane, and pan to it if it is out of sight. */
  reveal([x, y]) {
    this.#touched();
    const [left, top] = [this.x(x), this.y(y)];
    const hidden = left < 0 || top < 0 || left > this.width || top > this.height;
    const [right, down] = hidden ? [this.width / 2 - left, this.height / 2 - top] : [0, 0];
    const { transform } = this.zoom;
    this.zoom.jump({ k: transform.k, x: transform.x + right, y: transform.y + down });
    this.moveTo([x, y]);
  }

  /** The context of one of the two canvases, with the canvas cleared and as large as the map. */
  context(name) {
    const canvas = this.root.querySelector(`canvas.${name}`);
    canvas.width = this.width * devicePixelRatio; // This clears the canvas, too.
    canvas.height = this.height * devicePixelRatio;
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    return context;
  }

  #resize() {
    this.width = this.root.clientWidth;
    this.height = this.root.clientHeight;
    this.#changed();
  }

  #changed() {
    const { k, x, y } = this.zoom.transform;
    this.x = axis(this.extents[0], [0, this.width]).zoomed(k, x);
    this.y = axis(this.extents[1], [this.height, 0]).zoomed(k, y);
    this.dispatchEvent(new Event("view"));
  }

  #touched() {
    this.dispatchEvent(new Event("touched"));
  }

  #point(event) {
    if (event.target.closest("button") || (event.pointerType === "mouse" && event.buttons)) return;
    this.#touched();
    this.crosshair = placeOf(event, this.root);
    this.dispatchEvent(new Event("move"));
  }

  #click(event) {
    if (event.target.closest("button")) return;
    this.crosshair = placeOf(event, this.root);
    this.dispatchEvent(new Event("move"));
    this.dispatchEvent(new Event("pick"));
  }

  #key(event) {
    if (event.target !== this.root || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in STEPS) this.#walk(STEPS[event.key], event.shiftKey ? 10 : 1);
    else if (event.key in FACTORS) this.zoomBy(FACTORS[event.key]);
    else if (event.key === "0") this.reset();
    else if (event.key === "Enter" || event.key === " ") this.dispatchEvent(new Event("pick"));
    else return;
    event.preventDefault();
    this.#touched();
  }

  #walk([right, down], steps) {
    const step = this.width * STEP * steps;
    const [left, top] = this.crosshair ?? [this.width / 2, this.height / 2];
    this.crosshair = [clamp(left + right * step, this.width), clamp(top + down * step, this.height)];
    this.dispatchEvent(new Event("move"));
  }
}

/** The range of nearly all points on an axis, with a margin. */
function extent({ places }, d) {
  const values = sorted(places.map((place) => place[d]));
  const low = quantile(values, TRIM) ?? -1;
  const high = quantile(values, 1 - TRIM) ?? 1;
  const margin = (high - low) * MARGIN || 1;
  return [low - margin, high + margin];
}

function clamp(value, limit) {
  return Math.min(Math.max(value, 0), limit);
}
