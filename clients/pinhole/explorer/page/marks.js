/** What is drawn over the points: crosshair, the line between pins, the dots of the user's images. */

const RING_PX = 6;

export class Marks {
  /** @param {object} world */
  constructor(world) {
    this.world = world;
    /** @type {{place: [number, number], latest: boolean}[]} */
    this.own = [];
    world.map.addEventListener("move", () => this.draw());
    world.map.addEventListener("view", () => this.draw());
  }

  draw() {
    const { map, dots, pins } = this.world;
    const context = map.context("marks");
    this.#drawCrosshair(context, map, dots.colours);
    this.#drawLine(context, map, pins?.places ?? [], dots.colours);
    for (const mark of this.own) drawRing(context, map, mark, dots.colours);
  }

  #drawCrosshair(context, map, { ink }) {
    if (!map.crosshair) return;
    const [left, top] = map.crosshair.map((value) => Math.round(value) + 0.5);
    context.strokeStyle = ink;
    context.lineWidth = 1;
    context.globalAlpha = 0.22;
    context.beginPath();
    context.moveTo(left, 0);
    context.lineTo(left, map.height);
    context.moveTo(0, top);
    context.lineTo(map.width, top);
    context.stroke();
    context.globalAlpha = 1;
  }

  #drawLine(context, map, places, { ink, surface }) {
    if (places.length < 2) return;
    const [from, to] = places.map(([x, y]) => [map.x(x), map.y(y)]);
    for (const [colour, width] of [[surface, 5], [ink, 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(...to);
      context.stroke();
    }
  }
}

function drawRing(context, map, { place: [x, y], latest }, { accent, surface }) {
  const radius = latest ? RING_PX + 2 : RING_PX;
  // A point beyond the map is shown as half a ring at the map's edge.
  const left = Math.min(Math.max(map.x(x), 0), map.width);
  const top = Math.min(Math.max(map.y(y), 0), map.height);
  context.beginPath();
  context.arc(left, top, radius, 0, 2 * Math.PI);
  context.strokeStyle = surface;
  context.lineWidth = 7;
  context.stroke();
  context.strokeStyle = accent;
  context.lineWidth = latest ? 3.5 : 2.5;
  context.stroke();
}
