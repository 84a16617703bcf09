/** The drawing pad: mouse, pen, touch or arrow keys make strokes. */

import { STEPS } from "./map.js";
import { trace } from "./strokes.js";

// Parts of the pad's side: the pen's width, and an arrow key's step.
const PEN = 0.075;
const STEP = 0.04;

export class Pad {
  /** @type {[number, number][][]} strokes of points in [0, 1]² */
  strokes = [];
  #drawing = false;
  #nib = null; // Where the keyboard's pen is; null while a pointer draws.

  /** @param {HTMLCanvasElement} canvas @param {() => void} changed */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, () => (this.#drawing = false));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#lift());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  clear() {
    this.strokes = [];
    this.#touch();
  }

  undo() {
    this.strokes.pop();
    this.#touch();
  }

  draw() {
    const { canvas } = this;
    const side = canvas.clientWidth * devicePixelRatio;
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = PEN * side;
    context.strokeStyle = getComputedStyle(canvas).color;
    for (const stroke of this.strokes) trace(context, stroke.map(([x, y]) => [x * side, y * side]));
    if (this.#nib) this.#drawNib(context, side);
  }

  #drawNib(context, side) {
    context.beginPath();
    context.arc(this.#nib[0] * side, this.#nib[1] * side, PEN * side * 0.75, 0, 2 * Math.PI);
    context.lineWidth = 2 * devicePixelRatio;
    context.strokeStyle = getComputedStyle(this.canvas).outlineColor;
    context.stroke();
  }

  #down(event) {
    if (event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#drawing = true;
    this.#nib = null;
    this.strokes.push([this.#place(event)]);
    this.#touch();
  }

  #drag(event) {
    if (!this.#drawing) return;
    for (const part of event.getCoalescedEvents?.() ?? [event]) this.strokes.at(-1).push(this.#place(part));
    this.#touch();
  }

  /** Arrows move the pen, Space lowers or lifts it, Backspace removes the newest stroke. */
  #key(event) {
    if (event.key in STEPS) this.#walk(STEPS[event.key]);
    else if (event.key === " ") this.#drawing ? this.#lift() : this.#lower();
    else if (event.key === "Backspace") this.undo();
    else if (event.key === "Delete") this.clear();
    else return;
    event.preventDefault();
  }

  #walk([right, down]) {
    const [x, y] = this.#nib ?? [0.5, 0.5];
    this.#nib = [x + right * STEP, y + down * STEP].map((value) => Math.min(Math.max(value, 0), 1));
    if (this.#drawing) this.strokes.at(-1).push(this.#nib);
    this.#touch();
  }

  #lower() {
    this.#nib ??= [0.5, 0.5];
    this.#drawing = true;
    this.strokes.push([this.#nib]);
    this.#touch();
  }

  #lift() {
    this.#drawing = false;
    this.#nib = null;
    this.draw();
  }

  #touch() {
    this.draw();
    this.changed();
  }

  #place(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }
}
