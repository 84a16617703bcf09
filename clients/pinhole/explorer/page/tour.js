/** A short walk of the crosshair when the page opens, which shows what the page does. */

import { pause } from "./pace.js";
import { between } from "./plane.js";

const STOPS = 5;
const STRIDE_MS = 1_900; // The walk from one stop to the next.
const REST_MS = 350; // The rest at a stop.

/**
  * Walk from stop to stop, until the last stop or until the user touches the map.
 *
 * @param {import("./map.js").MapView} map
 * @param {[number, number][]} centres of the classes
 */
export async function tour(map, centres) {
  const stops = route(centres.length ? centres : corners(map));
  let over = false;
  map.addEventListener("touched", () => (over = true), { once: true });
  map.moveTo(stops[0]);
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  await pause(3 * REST_MS);
  for (const [index, to] of stops.slice(1).entries()) {
    const started = performance.now();
    for (let t = 0; t < 1 && !over && !document.hidden; ) {
      const now = await new Promise(requestAnimationFrame);
      t = Math.min((now - started) / STRIDE_MS, 1);
      const eased = (1 - Math.cos(Math.PI * Math.max(t, 0))) / 2;
      if (!over) map.moveTo(between(stops[index], to, eased));
    }
    if (over) return;
    await pause(REST_MS);
  }
}

/** An order of the stops: from each stop to the nearest that has not been visited. */
function route(centres) {
  const left = [...centres];
  const stops = [left.shift()];
  while (left.length && stops.length < STOPS) {
    const [x, y] = stops.at(-1);
    const away = left.map((place) => Math.hypot(place[0] - x, place[1] - y));
    stops.push(...left.splice(away.indexOf(Math.min(...away)), 1));
  }
  return stops;
}

function corners(map) {
  const at = (x, y) => [map.x.invert(x * map.width), map.y.invert(y * map.height)];
  return [at(0.5, 0.5), at(0.7, 0.35), at(0.3, 0.6)];
}
