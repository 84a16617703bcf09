/**
  * Turns pen strokes into the pixels that a model expects.
  *
  * A model of ink is given a drawing in the form that MNIST's makers gave to theirs: the ink's box is
  * scaled to 20 of 28 pixels with its aspect ratio kept, and its centre of mass is put in the middle
  * (http://yann.lecun.com/exdb/mnist). The pen is as thick as theirs, however large the drawing. Any
  * other model is given the pad as it is, scaled.
 */

import { isInk } from "./paint.js";

// Parts of the picture's shorter side: the ink's box, and the pen's width.
const BOX = 20 / 28;
const PEN = 2.3 / 28;
// Part of the pad's side: the pen's width, for models that are given the pad as it is.
const PAD_PEN = 0.075;

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

/** Draw strokes as one grey value for each pixel, antialiased by the canvas. */
function draw(strokes, width, height, pen, place) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = pen;
  for (const stroke of strokes) trace(context, stroke.map(place));
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: width * height }, (_, index) => data[4 * index + 3]);
}

/** Draw a smooth line through points, or a dot if there is only one. */
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
