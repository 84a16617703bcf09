/**
 * A button for each class. The chosen classes are shown and all other points fade; while none is
 * chosen, all points are shown.
 */

import { classColour } from "./palette.js";

/**
 * @param {HTMLElement} root
 * @param {import("./dots.js").Dots} dots
 * @param {() => void} changed
 */
export function fillLegend(root, dots, changed) {
  const { classes } = dots.points;
  root.hidden = classes.length === 0;
  const buttons = classes.map((label, place) => {
    const button = document.createElement("button");
    const swatch = document.createElement("i");
    swatch.style.background = classColour(place);
    button.append(swatch, String(label));
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      if (!dots.only.delete(label)) dots.only.add(label);
      button.setAttribute("aria-pressed", String(dots.only.has(label)));
      changed();
    });
    return button;
  });
  root.replaceChildren(...buttons);
}

/** Set the buttons' colours again, after the colour scheme has changed. */
export function recolourLegend(root) {
  [...root.querySelectorAll("i")].forEach((swatch, place) => (swatch.style.background = classColour(place)));
}
