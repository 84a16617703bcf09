/** The style sheet's colours, for canvases; they follow the light or dark scheme. */

const CLASS_COLOURS = 10;

/** @returns {{ink: string, soft: string, faint: string, surface: string, accent: string}} */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "soft", "faint", "surface", "accent"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** The colour of a class, by its place in the list of classes; the colours repeat after ten. */
export function classColour(place) {
  const style = getComputedStyle(document.documentElement);
  return style.getPropertyValue(`--class-${place % CLASS_COLOURS}`).trim();
}

/** Call `run` whenever the user's scheme changes between light and dark. */
export function onSchemeChange(run) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", run);
}
