/** Draws a map's points, each class's name in the middle of its points, and axis figures. */

import { classColour, colours } from "./palette.js";
import { centres } from "./points.js";

const SPARSE = 2_000; // With fewer points than this, dots are larger.
const RADIUS_PX = { smallest: 1.7, largest: 5 };
const TICKS = 6;
const LONGEST_NAME = 24;

export class Dots {
  /** @param {import("./points.js").Points} points @param {number} width D of the embeddings */
  constructor(points, width) {
    this.points = points;
    this.width = width;
    this.centres = centres(points);
    /** The labels to show; all of them if empty. */
    this.only = new Set();
    const kinds = new Map(points.classes.map((label, place) => [label, place]));
    this.kinds = points.places.map((_, index) => (points.labels ? kinds.get(points.labels[index]) : 0));
    this.refresh();
  }

  /** Read the colours again, after the colour scheme has changed. */
  refresh() {
    this.colours = colours();
    const { labels, classes } = this.points;
    this.classColours = labels ? classes.map((_, place) => classColour(place)) : [this.colours.ink];
  }

  colourOfClass(label) {
    return this.classColours[this.points.classes.indexOf(label)];
  }

  isShown(index) {
    return this.only.size === 0 || this.only.has(this.points.labels[index]);
  }

  /**
   * @param {CanvasRenderingContext2D} context in CSS pixels
   * @param {{x: Function, y: Function, width: number, height: number, zoom: number}} view
    * @param {number} alpha opacity of the dots
   */
  draw(context, view, alpha = 0.8) {
    const few = Math.sqrt(Math.max(1, SPARSE / Math.max(this.points.places.length, 1)));
    const radius = Math.min(RADIUS_PX.smallest * Math.min(few, 2) * view.zoom ** 0.4, RADIUS_PX.largest);
    const side = 2 * radius + 2;
    // The scales are linear, so two calls of each tell the whole mapping. Calling them for each of
    // ten thousand points would take most of a frame's time.
    const [x0, y0] = [view.x(0), view.y(0)];
    const [kx, ky] = [view.x(1) - x0, view.y(1) - y0];
    const pass = (shown, stamps) => {
      this.points.places.forEach(([x, y], index) => {
        if (this.isShown(index) !== shown) return;
        const [left, top] = [x0 + kx * x - side / 2, y0 + ky * y - side / 2];
        if (left < -side || top < -side || left > view.width || top > view.height) return;
        context.drawImage(stamps[this.kinds[index]], left, top, side, side);
      });
    };
    if (this.only.size) pass(false, this.#stamps(radius, () => this.colours.faint));
    context.globalAlpha = alpha;
    pass(true, this.#stamps(radius, (colour) => colour));
    context.globalAlpha = 1;
  }

  #stamps(radius, recolour) {
    return this.classColours.map((colour) => stamp(recolour(colour), radius));
  }

  /** Name each class in the middle of its points. */
  drawNames(context, view) {
    context.font = "650 21px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    context.strokeStyle = this.colours.surface;
    context.lineWidth = 5;
    context.fillStyle = this.colours.ink;
    this.points.classes.forEach((label, place) => {
      if (this.only.size && !this.only.has(label)) return;
      const [x, y] = this.centres[place];
      const name = shortened(label);
      const left = within(view.x(x), context.measureText(name).width, view.width);
      context.strokeText(name, left, view.y(y));
      context.fillText(name, left, view.y(y));
    });
  }

  /** Write the values of the two axes along the lower and the left edge. */
  drawTicks(context, view) {
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = this.colours.soft;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    for (const value of view.x.ticks(TICKS)) {
      const left = view.x(value);
      if (left > 44 && left < view.width - 14) context.fillText(figure(value), left, view.height - 9);
    }
    if (this.width === 1) return; // The height means nothing.
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (const value of view.y.ticks(TICKS)) {
      const top = view.y(value);
      if (top > 14 && top < view.height - 30) context.fillText(figure(value), 10, top);
    }
  }
}

/** A number as text, with a true minus sign and no more digits than needed. */
export function figure(value, digits) {
  const text = digits === undefined ? String(Number(value.toPrecision(6))) : value.toFixed(digits);
  return text.replace("-", "−");
}

/** A class's name, as a map has room for it. */
function shortened(label) {
  const name = String(label);
  return name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME - 1)}…` : name;
}

/** The middle of a text that is to stand at `middle`, moved so that no part of it is cut off. */
function within(middle, wide, width) {
  if (middle < 0 || middle > width) return middle; // Out of sight, as the points that it names are.
  return Math.max(wide / 2 + 4, Math.min(middle, width - wide / 2 - 4));
}

/** Paint a dot once, on a canvas that is then copied ten thousand times. */
function stamp(colour, radius) {
  const scale = Math.max(devicePixelRatio, 1) * 2;
  const side = Math.ceil((2 * radius + 2) * scale);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.fillStyle = colour;
  context.arc(side / 2, side / 2, radius * scale, 0, 2 * Math.PI);
  context.fill();
  return canvas;
}
