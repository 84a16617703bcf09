/** One axis of a map: the plane's numbers to the screen's pixels, and back. */

/**
 * @param {[number, number]} domain the plane's numbers at the two ends
 * @param {[number, number]} range the pixels at the two ends
 */
export function axis([low, high], [start, end]) {
  const toPixels = (value) => start + ((value - low) / (high - low)) * (end - start);
  toPixels.invert = (pixel) => low + ((pixel - start) / (end - start || 1)) * (high - low);
  toPixels.ticks = (count) => roundNumbers(low, high, count);
  /** The axis that shows every pixel p of this axis at k * p + shift. */
  toPixels.zoomed = (k, shift) => {
    const domain = [start, end].map((pixel) => toPixels.invert((pixel - shift) / k));
    return axis(domain, [start, end]);
  };
  return toPixels;
}

/** About `count` numbers from low to high: the multiples of 1, 2 or 5 times a power of ten. */
function roundNumbers(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const ratio = rough / power; // From 1 to 10; the nearest of 1, 2, 5 and 10 on a logarithmic scale.
  const step = power * (ratio >= Math.sqrt(50) ? 10 : ratio >= Math.sqrt(10) ? 5 : ratio >= Math.SQRT2 ? 2 : 1);
  const first = Math.ceil(low / step - 1e-9); // -0.3 / 0.1 is above -3.
  const length = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length }, (_, index) => (first + index) * step);
}
