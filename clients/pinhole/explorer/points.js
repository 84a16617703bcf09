/** The points of a map: where each lies on the screen's plane, which label it has. */

const LANE = 0.34; // half the height of a label's lane, where embeddings have one number only
const GOLDEN = 0.618033988749895; // its multiples spread evenly between 0 and 1

/**
 * @typedef {object} Points
 * @property {[number, number][]} places
 * @property {number[] | null} labels of each; null where there is nothing to tell apart
 * @property {number[]} classes the labels there are, in order
 * @property {number[][]} embeddings
 */

/** @returns {Points} */
export function toPoints(embeddings, labels, plane) {
  const classes = [...new Set(labels)].sort((a, b) => a - b);
  const labelled = classes.length > 1;
  const places = embeddings.map((embedding, index) => {
    const place = plane.project(embedding);
    if (plane.width > 1) return place;
    const lane = labelled ? -classes.indexOf(labels[index]) : 0;
    return [place[0], lane + (((index * GOLDEN) % 1) * 2 - 1) * LANE];
  });
  return { places, embeddings, labels: labelled ? labels : null, classes: labelled ? classes : [] };
}

/** The middle of each class: the point by which half its points lie on every side. */
export function centres({ places, labels, classes }) {
  return classes.map((label) => {
    const own = places.filter((_, index) => labels[index] === label);
    return [0, 1].map((axis) => d3.median(own, (place) => place[axis]));
  });
}

/**
 * The labels of the nearest points, the commonest first.
 *
 * @param {Points} points
 * @param {number[]} embedding
 * @param {number} count of neighbours
 * @returns {{label: number, count: number}[]}
 */
export function neighbours({ embeddings, labels }, embedding, count = 10) {
  if (!labels) return [];
  const distances = embeddings.map((other) => {
    let sum = 0;
    for (let d = 0; d < other.length; d++) sum += (other[d] - embedding[d]) ** 2;
    return sum;
  });
  const nearest = d3.range(embeddings.length).sort((a, b) => distances[a] - distances[b]);
  const votes = d3.rollups(nearest.slice(0, count), (group) => group.length, (i) => labels[i]);
  return votes.sort((a, b) => b[1] - a[1]).map(([label, votes]) => ({ label, count: votes }));
}
