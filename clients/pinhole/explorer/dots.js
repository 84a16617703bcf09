/** Draws a map's points, with a name in the middle of each class and figures along the edges. */

import { classColour, colours } from "./palette.js";
import { centres } from "./points.js";

const RADIUS = { smallest: 1.7, largest: 5 };
const SPARSE = 2_000; // with fewer points than this, dots are larger
const TICKS = 6;

export class Dots {
  /** @param {import("./points.js").Points} points @param {number} width D of the embeddings */
  constructor(points, width) {
    this.points = points;
    this.width = width;
    this.centres = centres(points);
    /** The labels to show; all of them if empty. */
    this.only = new Set();
    this.refresh();
  }

  /** Read the colours anew: the scheme has changed. */
  refresh() {
    this.colours = colours();
    this.classColours = this.points.classes.map((_, place) => classColour(place));
    this.place = new Map(this.points.classes.map((label, place) => [label, place]));
  }

  /** The colour of a point. */
  colourOf(index) {
    return this.points.labels ? this.colourOfClass(this.points.labels[index]) : this.colours.ink;
  }

  colourOfClass(label) {
    return this.classColours[this.place.get(label)];
  }

  isShown(index) {
    return this.only.size === 0 || this.only.has(this.points.labels[index]);
  }

  /**
   * @param {CanvasRenderingContext2D} context in CSS pixels
   * @param {{x: Function, y: Function, width: number, height: number, zoom: number}} view
   * @param {number} alpha of the dots
   */
  draw(context, view, alpha = 0.8) {
    const few = Math.sqrt(Math.max(1, SPARSE / Math.max(this.points.places.length, 1)));
    const radius = Math.min(RADIUS.smallest * Math.min(few, 2) * view.zoom ** 0.4, RADIUS.largest);
    const stamps = new Map();
    const order = [...this.points.places.keys()];
    if (this.only.size) order.sort((a, b) => this.isShown(a) - this.isShown(b)); // faint ones below
    for (const index of order) {
      const [x, y] = this.points.places[index];
      const [left, top] = [view.x(x), view.y(y)];
      if (left < -9 || top < -9 || left > view.width + 9 || top > view.height + 9) continue;
      const shown = this.isShown(index);
      const colour = shown ? this.colourOf(index) : this.colours.faint;
      if (!stamps.has(colour)) stamps.set(colour, stamp(colour, radius));
      context.globalAlpha = shown ? alpha : 1;
      context.drawImage(stamps.get(colour), left - radius - 1, top - radius - 1, 2 * radius + 2, 2 * radius + 2);
    }
    context.globalAlpha = 1;
  }

  /** Name each class in the middle of its points. */
  drawNames(context, view) {
    context.font = "650 21px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    this.points.classes.forEach((label, place) => {
      if (this.only.size && !this.only.has(label)) return;
      const [x, y] = this.centres[place];
      context.strokeStyle = this.colours.surface;
      context.lineWidth = 5;
      context.strokeText(label, view.x(x), view.y(y));
      context.fillStyle = this.colours.ink;
      context.fillText(label, view.x(x), view.y(y));
    });
  }

  /** The two numbers, along the lower and the left edge. */
  drawTicks(context, view) {
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = this.colours.soft;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    for (const value of view.x.ticks(TICKS)) {
      const left = view.x(value);
      if (left > 44 && left < view.width - 14) context.fillText(figure(value), left, view.height - 9);
    }
    if (this.width === 1) return; // the height means nothing
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (const value of view.y.ticks(TICKS)) {
      const top = view.y(value);
      if (top > 14 && top < view.height - 30) context.fillText(figure(value), 10, top);
    }
  }
}

/** A number with a true minus and no more digits than it needs. */
export function figure(value, digits) {
  const text = digits === undefined ? String(Number(value.toPrecision(6))) : value.toFixed(digits);
  return text.replace("-", "−");
}

/** A dot painted once, to be copied ten thousand times. */
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
