/**
  * Maps embeddings of any width to the two directions of a screen, and back.
  *
  * An embedding of two numbers is shown as it is. Of one number, the number goes from left to right
  * and the height only keeps labels apart. Of more, the plane of their two principal axes (PCA) is
  * shown.
 */

const ITERATIONS = 60; // Of power iteration: more than enough for a picture.
const SAMPLE = 2_000; // The principal axes are computed from at most this many points.

export class Plane {
  /** @param {number[][]} embeddings [N, D] @param {number} width D */
  constructor(embeddings, width) {
    this.width = width;
    if (width <= 2) return;
    const step = Math.ceil(embeddings.length / SAMPLE);
    const sample = embeddings.filter((_, index) => index % step === 0);
    this.mean = meanOf(sample, width);
    const centred = sample.map((row) => row.map((value, d) => value - this.mean[d]));
    this.axes = principalAxes(centred, width);
    /** How much of the variance the plane shows, from 0 to 1. */
    this.share = shareOf(centred, this.axes);
  }

  /** @param {number[]} embedding @returns {[number, number]} */
  project(embedding) {
    if (this.width === 1) return [embedding[0], 0];
    if (this.width === 2) return [embedding[0], embedding[1]];
    const centred = embedding.map((value, d) => value - this.mean[d]);
    return this.axes.map((axis) => dot(centred, axis));
  }

  /** @param {[number, number]} point @returns {number[]} the embedding at that point */
  embedding([x, y]) {
    if (this.width === 1) return [x];
    if (this.width === 2) return [x, y];
    return this.mean.map((mean, d) => mean + x * this.axes[0][d] + y * this.axes[1][d]);
  }
}

/** The point at the share t, from 0 to 1, of the way from one point to another. */
export function between(from, to, t) {
  return from.map((value, d) => value * (1 - t) + to[d] * t);
}

/**
 * The two orthogonal directions in which rows differ most, by power iteration.
 *
 * @param {number[][]} rows centred, [N, D]
 */
function principalAxes(rows, width) {
  const axes = [];
  for (const seed of [1, 2]) {
    let axis = Array.from({ length: width }, (_, d) => Math.cos(seed * (d + 1)));
    for (let i = 0; i < ITERATIONS; i++) {
      const next = new Array(width).fill(0);
      for (const row of rows) {
        const along = dot(row, axis);
        for (let d = 0; d < width; d++) next[d] += along * row[d];
      }
      axis = unit(without(next, axes), axis);
    }
    axes.push(axis);
  }
  return axes;
}

function without(vector, axes) {
  return axes.reduce((rest, axis) => {
    const along = dot(rest, axis);
    return rest.map((value, d) => value - along * axis[d]);
  }, vector);
}

/** The vector scaled to length 1, or `otherwise` if its length is 0, as when all rows are equal. */
function unit(vector, otherwise) {
  const length = Math.sqrt(dot(vector, vector));
  return length > 1e-12 ? vector.map((value) => value / length) : otherwise;
}

function shareOf(rows, axes) {
  let shown = 0;
  let total = 0;
  for (const row of rows) {
    total += dot(row, row);
    for (const axis of axes) shown += dot(row, axis) ** 2;
  }
  return total > 0 ? shown / total : 1;
}

function meanOf(rows, width) {
  const sums = new Array(width).fill(0);
  for (const row of rows) for (let d = 0; d < width; d++) sums[d] += row[d];
  return sums.map((sum) => sum / Math.max(rows.length, 1));
}

function dot(a, b) {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d] * b[d];
  return sum;
}
