/** The points of a map: where each lies on the plane, and which label it has. */

const LANE = 0.34; // Half the height of a label's lane, for embeddings of one number.
const NEIGHBOURS = 10; // That vote on the label of a place.
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
  const classes = [...new Set(labels)].sort((one, other) => (one < other ? -1 : 1));
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
  const inOrder = sorted(values);
  const width = inOrder.at(-1) - inOrder[0];
  return Math.min(Math.max(2 - Math.floor(Math.log10(width / 4 || 1)), 0), 8);
}

/** @param {number[]} values @returns {Float64Array} from the least to the greatest */
export function sorted(values) {
  return Float64Array.from(values).sort();
}

/** The value with the share q of the sorted values below it; undefined if there are no values. */
export function quantile(values, q) {
  if (!values.length) return undefined;
  const place = (values.length - 1) * q;
  const [low, high] = [values[Math.floor(place)], values[Math.ceil(place)]];
  return low + (high - low) * (place % 1);
}

/** The middle of each class: the medians of its points' coordinates. */
export function centres({ places, labels, classes }) {
  return classes.map((label) => {
    const own = places.filter((_, index) => labels[index] === label);
    return [0, 1].map((d) => quantile(sorted(own.map((place) => place[d])), 0.5));
  });
}

/**
 * The labels of the nearest points, the commonest first.
 *
 * @param {number[][]} rows the points' embeddings, or their places
 * @param {number[] | null} labels
 * @param {number[]} where
 * @returns {{label: number, count: number}[]}
 */
export function neighbours(rows, labels, where) {
  if (!labels) return [];
  const nearest = []; // [distance, index], the nearest point first.
  rows.forEach((row, index) => {
    let distance = 0;
    for (let d = 0; d < row.length; d++) distance += (row[d] - where[d]) ** 2;
    if (nearest.length === NEIGHBOURS && distance >= nearest.at(-1)[0]) return;
    const farther = nearest.findIndex(([other]) => other > distance);
    nearest.splice(farther < 0 ? nearest.length : farther, 0, [distance, index]);
    nearest.length = Math.min(nearest.length, NEIGHBOURS);
  });
  const votes = new Map();
  for (const [, index] of nearest) votes.set(labels[index], (votes.get(labels[index]) ?? 0) + 1);
  const counts = [...votes].map(([label, count]) => ({ label, count }));
  return counts.sort((one, other) => other.count - one.count);
}
