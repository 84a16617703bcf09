/** The picture beside the crosshair: what the model draws from the numbers of that place. */

import { figure } from "./dots.js";
import { latest, settled } from "./pace.js";
import { paint } from "./paint.js";
import { neighbours } from "./points.js";
import { tolerate } from "./service.js";

const GAP = 22; // between the crosshair and the picture
const SPEECH_MS = 700; // of rest, before a place is told to screen readers

export class Lens {
  /**
   * @param {HTMLElement} root
   * @param {object} world what main.js knows of the model and the page
   */
  constructor(root, world) {
    this.root = root;
    this.world = world;
    this.ask = latest((place) => this.#decode(place));
    this.tell = settled(SPEECH_MS, (embedding) => this.#announce(embedding));
    world.map.addEventListener("move", () => this.#move());
    world.map.addEventListener("view", () => this.#move());
  }

  #move() {
    const { map } = this.world;
    if (!map.crosshair) return;
    this.root.hidden = false;
    this.#stand(map.crosshair, map);
    this.ask(map.place);
  }

  /** To the right of the crosshair and above it, or wherever there is room. */
  #stand([left, top], { width }) {
    const { offsetWidth, offsetHeight } = this.root;
    const right = left + GAP + offsetWidth < width - 4;
    const above = top - GAP - offsetHeight > 4;
    const x = right ? left + GAP : left - GAP - offsetWidth;
    const y = above ? top - GAP - offsetHeight : top + GAP;
    this.root.style.transform = `translate(${Math.max(x, 4)}px, ${y}px)`;
  }

  async #decode(place) {
    const { service, plane, image, points } = this.world;
    const embedding = plane.embedding(place);
    if (service.down) return;
    try {
      const [pixels] = await service.decode([embedding]);
      paint(this.root.querySelector("canvas"), pixels, image);
      this.root.querySelector("output").textContent = written(embedding, place, points.digits);
      this.tell(embedding);
    } catch (error) {
      tolerate(error); // the status line says that the service is down; the next movement asks again
    }
  }

  #announce(embedding) {
    const { points, plane, say, names } = this.world;
    const [nearest] = neighbours(points.embeddings, points.labels, embedding);
    const company = nearest ? `, among ${names(nearest.label)}` : "";
    say(`${written(embedding, plane.project(embedding), points.digits)}${company}`);
  }
}

/** An embedding of one or two numbers; of more, the place on the plane. */
export function written(embedding, place, digits) {
  const shown = embedding.length <= 2 ? embedding : place;
  return `(${shown.map((value) => figure(value, digits)).join(", ")})`;
}
