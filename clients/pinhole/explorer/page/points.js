/** The points of a map: where each lies on the plane, and which label it has. */

const LANE = 0.34; // Half the height of a label's lane, for embeddings of one number.
const GOLDEN = 0.618033988749895; // Its multiples modulo 1 spread evenly between 0 and 1.

/**
 * @typedef {object} Points
 * @property {[number, number][]} places
  * @property {(number | string)[] | null} labels of the points; null if there are fewer than two classes
  * @property {(number | string)[]} classes the distinct labels, sorted
 * @property {number[][]} embeddings
  * @property {number} digits after the decimal point that are enough to tell places apart
 */

/** @returns {Points} */
export function toPoints(embeddings, labels, plane) {
  const classes = d3.sort(new Set(labels));
  const labelled = classes.length > 1;
  const places = embeddings.map((embedding, index) => {
    const place = plane.project(embedding);
    if (plane.width > 1) return place;
    const lane = labelled ? -classes.indexOf(labels[index]) : 0;
    return [place[0], lane + (((index * GOLDEN) % 1) * 2 - 1) * LANE];
  });
  const digits = digitsFor(places.map(([x]) => x));
  return { places, embeddings, digits, labels: labelled ? labels : null, classes: labelled ? classes : [] };
}

/** Digits after the decimal point: 2 for values that spread over a few units. */
function digitsFor(values) {
  const [low, high] = d3.extent(values);
  return Math.min(Math.max(2 - Math.floor(Math.log10((high - low) / 4 || 1)), 0), 8);
}

/** The middle of each class: the medians of its points' coordinates. */
export function centres({ places, labels, classes }) {
  return classes.map((label) => {
    const own = places.filter((_, index) => labels[index] === label);
    return [0, 1].map((axis) => d3.median(own, (place) => place[axis]));
  });
}

/**
 * The labels of the nearest points, the commonest first.
 *
 * @param {number[][]} rows the points' embeddings, or their places
 * @param {number[] | null} labels
 * @param {number[]} where
 * @param {number} count of neighbours
 * @returns {{label: number, count: number}[]}
 */
export function neighbours(rows, labels, where, count = 10) {
  if (!labels) return [];
  const nearest = []; // [distance, index], the nearest point first.
  rows.forEach((row, index) => {
    let distance = 0;
    for (let d = 0; d < row.length; d++) distance += (row[d] - where[d]) ** 2;
    if (nearest.length === count && distance >= nearest.at(-1)[0]) return;
    nearest.splice(d3.bisectRight(nearest.map(([other]) => other), distance), 0, [distance, index]);
    nearest.length = Math.min(nearest.length, count);
  });
  const votes = d3.rollups(nearest, (group) => group.length, ([, index]) => labels[index]);
  return d3.sort(votes, ([, votes]) => -votes).map(([label, count]) => ({ label, count }));
}
