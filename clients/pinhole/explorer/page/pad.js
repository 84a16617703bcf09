/** The drawing pad: mouse, pen, touch or arrow keys make strokes. */

import { STEPS } from "./map.js";

// Parts of the pad's side: the pen's width, and an arrow key's step. The service scales every drawing
// to the same size. A thinner pen would make large drawings too faint, a thicker pen small ones too bold.
const PEN = 0.05;
const STEP = 0.04;

const PNG_PX = 280; // Side of the picture that is sent; the service frames it.

export class Pad {
  /** @type {[number, number][][]} strokes of points in [0, 1]² */
  strokes = [];
  #drawing = false;
  #pointer = null; // The id of the pointer that draws; null while the keyboard's pen does, or none.
  #nib = null; // Where the keyboard's pen is; null while a pointer draws.

  /** @param {HTMLCanvasElement} canvas @param {() => void} changed */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.#up(event));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#lift());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  clear() {
    this.strokes = [];
    this.#drawing = false;
    this.#touch();
  }

  undo() {
    this.strokes.pop();
    this.#drawing = false;
    this.#touch();
  }

  draw() {
    const { canvas } = this;
    const side = canvas.clientWidth * devicePixelRatio;
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    this.#drawStrokes(context, side, getComputedStyle(canvas).color);
    if (this.#nib) this.#drawNib(context, side);
  }

  /** @returns {Promise<Blob>} the drawing as a PNG file, white on black */
  toPng() {
    const canvas = new OffscreenCanvas(PNG_PX, PNG_PX);
    const context = canvas.getContext("2d", { alpha: false }); // An opaque canvas is black at first.
    this.#drawStrokes(context, PNG_PX, "white");
    return canvas.convertToBlob();
  }

  #drawStrokes(context, side, colour) {
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = PEN * side;
    context.strokeStyle = colour;
    for (const stroke of this.strokes) trace(context, stroke.map(([x, y]) => [x * side, y * side]));
  }

  #drawNib(context, side) {
    context.beginPath();
    context.arc(this.#nib[0] * side, this.#nib[1] * side, PEN * side * 0.75, 0, 2 * Math.PI);
    context.lineWidth = 2 * devicePixelRatio;
    context.strokeStyle = getComputedStyle(this.canvas).outlineColor;
    context.stroke();
  }

  #down(event) {
    if (event.button || this.#pointer !== null) return; // A second finger or the palm draws nothing.
    this.canvas.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    this.#drawing = true;
    this.#nib = null;
    this.strokes.push([this.#place(event)]);
    this.#touch();
  }

  #drag(event) {
    if (!this.#drawing || event.pointerId !== this.#pointer) return;
    for (const part of event.getCoalescedEvents?.() ?? [event]) this.strokes.at(-1).push(this.#place(part));
    this.#touch();
  }

  #up(event) {
    if (event.pointerId !== this.#pointer) return;
    this.#pointer = null;
    this.#drawing = false;
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

/** Draw a smooth line through points, or a dot if there is only one. */
function trace(context, points) {
  context.beginPath();
  context.moveTo(...points[0]);
  points.slice(1).forEach((next, index) => {
    const [x, y] = points[index];
    context.quadraticCurveTo(x, y, (x + next[0]) / 2, (y + next[1]) / 2);
  });
  const [x, y] = points.at(-1);
  context.lineTo(x + 0.01, y); // A canvas draws nothing of a line without length.
  context.stroke();
}
