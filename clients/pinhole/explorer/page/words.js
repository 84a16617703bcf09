/** The page's sentences about the model that it shows; none of them is for MNIST only. */

const SMALL = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/** @param {number} count */
export function inWords(count) {
  return SMALL[count] ?? count.toLocaleString("en");
}

/** What pictures of a class are called: "7s"; a name stays as it is: "circles". */
export function names(label) {
  return typeof label === "number" ? `${label}s` : label;
}

/** The page's title, as a sentence. */
export function headline(width) {
  return `Images through ${inWords(width)} number${width === 1 ? "" : "s"}, and back.`;
}

/** The first paragraph. */
export function lead(image, width, count) {
  const values = image.channels * image.height * image.width;
  const numbers = `${inWords(width)} number${width === 1 ? "" : "s"}`;
  const them = width === 1 ? "that alone" : "those alone";
  return (
    `The model squeezes a picture of ${values.toLocaleString("en")} values into ${numbers}, and draws ` +
    `it again from ${them}. Each of the ${count.toLocaleString("en")} dots is a picture it was not ` +
    "trained on. Move across the map: the model draws what lies under your hand."
  );
}

/** What the map shows, if it isn't simply the embedding's two numbers. */
export function mapNote(plane, labelled) {
  if (plane.width === 2) return "";
  if (plane.width === 1) {
    const height = labelled ? "the rows are the labels" : "the height means nothing";
    return `This model keeps one number: left to right on this map; ${height}.`;
  }
  return (
    `This model keeps ${inWords(plane.width)} numbers. The map shows the two directions in which they ` +
    `differ most (${Math.round(100 * plane.share)}\u00a0% of their variance), and the pictures are drawn ` +
    "from that plane."
  );
}
