/**
 * Pen strokes → the pixels that a model expects.
 *
 * Models of ink are given a drawing as MNIST's makers gave theirs: the ink's box is scaled to 20 of
 * 28 pixels, its aspect kept, its centre of mass put in the middle
 * (http://yann.lecun.com/exdb/mnist). The pen is as thick as theirs, however large the drawing.
 * Other models see the pad as it is, scaled.
 */

import { isInk } from "./paint.js";

const BOX = 20 / 28; // of the picture's shorter side
const PEN = 2.3 / 28;
const PAD_PEN = 0.075; // of the pad's side, for models that see it as it is

/**
 * @param {[number, number][][]} strokes points in [0, 1]²
 * @param {{channels: number, height: number, width: number, polarity: string}} image
 * @returns {Uint8Array} [C, H, W]
 */
export function rasterise(strokes, image) {
  const { channels, height, width } = image;
  const size = height * width;
  const ink = isInk(image) ? centred(strokes, width, height) : plain(strokes, width, height);
  const pixels = new Uint8Array(channels * size);
  for (let channel = 0; channel < channels; channel++) pixels.set(ink, channel * size);
  return pixels;
}

function plain(strokes, width, height) {
  return draw(strokes, width, height, PAD_PEN * Math.min(width, height), ([x, y]) => [x * width, y * height]);
}

function centred(strokes, width, height) {
  const side = Math.min(width, height);
  const [[left, right], [top, bottom]] = [0, 1].map((axis) => d3.extent(strokes.flat(), (p) => p[axis]));
  const scale = (BOX - PEN) * side / Math.max(right - left, bottom - top, 0.05);
  const fit = (dx, dy) => ([x, y]) => [
    (x - (left + right) / 2) * scale + width / 2 + dx,
    (y - (top + bottom) / 2) * scale + height / 2 + dy,
  ];
  const [x, y] = mass(draw(strokes, width, height, PEN * side, fit(0, 0)), width);
  return draw(strokes, width, height, PEN * side, fit(width / 2 - x, height / 2 - y));
}

/** One grey value for each pixel; the canvas antialiases. */
function draw(strokes, width, height, pen, place) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = pen;
  for (const stroke of strokes) trace(context, stroke.map(place));
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: width * height }, (_, index) => data[4 * index + 3]);
}

/** A smooth line through points; a dot where there is one only. */
export function trace(context, points) {
  context.beginPath();
  context.moveTo(...points[0]);
  for (const [[x, y], next] of d3.pairs(points)) {
    context.quadraticCurveTo(x, y, (x + next[0]) / 2, (y + next[1]) / 2);
  }
  context.lineTo(...points.at(-1));
  context.stroke();
}

/** The centre of mass of grey values, in pixels. */
function mass(grey, width) {
  let [total, x, y] = [0, 0, 0];
  grey.forEach((value, index) => {
    total += value;
    x += value * ((index % width) + 0.5);
    y += value * (Math.floor(index / width) + 0.5);
  });
  return [x / total, y / total];
}
