/** A grid of decoded pictures over the visible region, drawn under the points; can be saved as PNG. */

import { latest, settled } from "./pace.js";
import { isInk, paint } from "./paint.js";
import { neighbours } from "./points.js";
import { tolerate } from "./service.js";

const CELL_PX = 42; // A cell's least side on the screen.
const REST_MS = 160; // Panning and zooming have to rest this long before the grid is decoded again.
const PNG_SCALE = 2; // Pixels of the PNG for each CSS pixel of the map.

export class Manifold {
  shown = false;
  #grid = null; // {places, corner, far, columns, rows, pictures, cells: HTMLCanvasElement[]}

  /** @param {object} world @param {() => void} redraw the map */
  constructor(world, redraw) {
    this.world = world;
    this.redraw = redraw;
    this.refresh = latest(() => this.#decode());
    world.map.addEventListener("view", settled(REST_MS, () => this.shown && this.refresh()));
  }

  async toggle() {
    this.shown = !this.shown;
    if (this.shown) await this.refresh();
    this.redraw();
  }

  /** Paint the cells, for a new grid or a new colour scheme. */
  #paint() {
    const { image, dots, points } = this.world;
    this.#grid.cells = this.#grid.pictures.map((pixels, index) => {
      const canvas = document.createElement("canvas");
      const [nearest] = neighbours(points.places, points.labels, this.#grid.places[index]);
      paint(canvas, pixels, image, nearest ? dots.colourOfClass(nearest.label) : dots.colours.ink);
      return canvas;
    });
  }

  recolour() {
    if (this.#grid) this.#paint();
  }

  /** @param {CanvasRenderingContext2D} context @param {object} view of the map */
  draw(context, view) {
    if (!this.shown || !this.#grid) return;
    const { columns, rows, corner, far, cells } = this.#grid;
    const [left, top] = [view.x(corner[0]), view.y(corner[1])];
    const [width, height] = [(view.x(far[0]) - left) / columns, (view.y(far[1]) - top) / rows];
    cells.forEach((cell, index) => {
      const column = index % columns;
      const row = Math.floor(index / columns);
      const [x, y] = [left + column * width, top + row * height];
      const inset = isInk(this.world.image) ? 0 : 1;
      context.drawImage(cell, x, y, width - inset, height - inset);
    });
  }

  /** @returns {Promise<Blob?>} this view's grid on the map's background; null if the service has none */
  async toPng() {
    const { width, height, view } = this.world.map;
    if (!(await this.#decode())) return null;
    const canvas = document.createElement("canvas");
    canvas.width = width * PNG_SCALE;
    canvas.height = height * PNG_SCALE;
    const context = canvas.getContext("2d");
    context.scale(PNG_SCALE, PNG_SCALE);
    context.fillStyle = this.world.dots.colours.surface;
    context.fillRect(0, 0, width, height);
    const before = this.shown;
    this.shown = true;
    this.draw(context, view);
    this.shown = before;
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  /**
   * Decode the whole grid in one request, with as many cells as fit on the screen and into a reply.
   *
   * @returns {Promise<boolean>} whether the service answered
   */
  async #decode() {
    const { map, plane, service, limits, image } = this.world;
    if (service.down) return false;
    const most = Math.min(limits.images, limits.reply_bytes / (2 * image.channels * image.height * image.width));
    const side = Math.max(CELL_PX, Math.sqrt((map.width * map.height) / most));
    const [columns, rows] = [Math.floor(map.width / side), Math.floor(map.height / side)];
    const places = Array.from({ length: rows * columns }, (_, cell) => [
      map.x.invert((((cell % columns) + 0.5) / columns) * map.width),
      map.y.invert(((Math.floor(cell / columns) + 0.5) / rows) * map.height),
    ]);
    const corner = [map.x.invert(0), map.y.invert(0)];
    const far = [map.x.invert(map.width), map.y.invert(map.height)];
    try {
      const pictures = await service.decode(places.map((place) => plane.embedding(place)));
      this.#grid = { places, corner, far, columns, rows, pictures };
      this.#paint();
      this.redraw();
      return true;
    } catch (error) {
      tolerate(error); // The status line shows the outage; the "up" event repeats the request.
      return false;
    }
  }
}
