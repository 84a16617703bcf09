/** The picture beside the crosshair: what the model draws from the embedding at that place. */

import { figure } from "./dots.js";
import { latest, settled } from "./pace.js";
import { paint } from "./paint.js";
import { neighbours } from "./points.js";
import { tolerate } from "./service.js";

const GAP_PX = 22; // Between the crosshair and the picture.
const SPEECH_MS = 700; // The crosshair has to rest this long before its place is announced.

export class Lens {
  /**
   * @param {HTMLElement} root
    * @param {object} world what main.js has built: the service, the model's description, the page's parts
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
    this.#standBeside(map.crosshair, map);
    this.ask(map.place);
  }

  /** Stand to the right of the crosshair and above it, or wherever there is room. */
  #standBeside([left, top], { width, height }) {
    const { offsetWidth, offsetHeight } = this.root;
    const right = left + GAP_PX + offsetWidth < width - 4;
    const above = top - GAP_PX - offsetHeight > 4;
    const x = right ? left + GAP_PX : left - GAP_PX - offsetWidth;
    const y = above ? top - GAP_PX - offsetHeight : top + GAP_PX;
    const within = Math.max(4, Math.min(y, height - offsetHeight - 4));
    this.root.style.transform = `translate(${Math.max(x, 4)}px, ${within}px)`;
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
      tolerate(error); // The status line shows the outage; the next movement asks again.
    }
  }

  #announce(embedding) {
    const { points, plane, say, names } = this.world;
    const [nearest] = neighbours(points.embeddings, points.labels, embedding);
    const company = nearest ? `, among ${names(nearest.label)}` : "";
    say(`${written(embedding, plane.project(embedding), points.digits)}${company}`);
  }
}

/** Coordinates as text: those of an embedding of one or two numbers, or else those on the plane. */
export function written(embedding, place, digits) {
  const shown = embedding.length <= 2 ? embedding : place;
  return `(${shown.map((value) => figure(value, digits)).join(", ")})`;
}
