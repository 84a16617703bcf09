/** The explorer: builds the page once the service has described the model that it serves. */

import { Dots } from "./dots.js";
import { Drawing } from "./drawing.js";
import { Files } from "./files.js";
import { askForKey } from "./key.js";
import { fillLegend, recolourLegend } from "./legend.js";
import { Lens } from "./lens.js";
import { Manifold } from "./manifold.js";
import { MapView } from "./map.js";
import { Marks } from "./marks.js";
import { showNumbers, showState } from "./numbers.js";
import { oncePerFrame, pause } from "./pace.js";
import { onSchemeChange } from "./palette.js";
import { Pins } from "./pins.js";
import { Plane } from "./plane.js";
import { toPoints } from "./points.js";
import { Service, tolerate } from "./service.js";
import { tour } from "./tour.js";
import { headline, lead, mapNote, names } from "./words.js";

const RETRY_MS = 3_000; // The pause before asking again a service that is up but refuses its map.
const FADED = 0.12; // Opacity of the dots while pictures fill the map.

const find = (selector) => document.querySelector(selector);

/** Have screen readers say a text. */
function say(text) {
  find("#live").textContent = text;
}

/** Load the model's description and its map, however long the service takes to come up. */
async function load(service) {
  for (;;) {
    try {
      return await Promise.all([service.describe(), service.map()]);
    } catch (error) {
      tolerate(error);
      find("#lead").textContent = error.message;
      if (service.down) await service.returned();
      else await pause(RETRY_MS);
    }
  }
}

function build(service, description, atlas) {
  const { image, limits, digest, embedding_width: width, classes = [] } = description;
  const plane = new Plane(atlas.embeddings, width);
  const labels = atlas.labels.map((label) => classes[label] ?? label);
  const points = toPoints(atlas.embeddings, labels, plane);
  const world = { service, image, limits, digest, plane, points, names, say };
  world.dots = new Dots(points, width);
  world.map = new MapView(find("#map"), points);
  world.marks = new Marks(world);
  world.pins = new Pins(find("#pins"), find("#strip"), world);
  world.manifold = new Manifold(world, oncePerFrame(() => drawMap(world)));
  world.lens = new Lens(find("#lens"), world);
  world.drawing = new Drawing(find("#draw"), world);
  world.files = new Files(find("#files"), find("#veil"), world);
  return world;
}

/** Draw everything that pans and zooms. */
function drawMap({ map, dots, manifold }) {
  const context = map.context("dots");
  manifold.draw(context, map.view);
  dots.draw(context, map.view, manifold.shown ? FADED : undefined);
  if (manifold.shown) return;
  dots.drawNames(context, map.view);
  dots.drawTicks(context, map.view);
}

function write({ image, plane, points }) {
  find("h1").textContent = headline(plane.width);
  find("#lead").textContent = lead(image, plane.width, points.places.length);
  find("#note").textContent = mapNote(plane, points.labels !== null);
}

function connect(world) {
  const { map, manifold, dots, service } = world;
  const redraw = oncePerFrame(() => drawMap(world));
  map.addEventListener("view", redraw);
  fillLegend(find("#legend"), dots, redraw);
  find("#closer").addEventListener("click", () => map.zoomBy(1.6));
  find("#farther").addEventListener("click", () => map.zoomBy(1 / 1.6));
  find("#whole").addEventListener("click", () => map.reset());
  find("#pictures").addEventListener("click", async (event) => {
    const button = event.currentTarget;
    await manifold.toggle();
    button.setAttribute("aria-pressed", String(manifold.shown));
  });
  find("#download").addEventListener("click", async () => {
    const picture = await manifold.toPng();
    write(world); // The note of an earlier failure goes.
    if (picture) return save(picture, "manifold.png");
    find("#note").textContent = "Nothing saved: the service gave no pictures.";
    say(find("#note").textContent);
  });
  service.addEventListener("up", () => resume(world));
  onSchemeChange(() => {
    dots.refresh();
    manifold.recolour();
    recolourLegend(find("#legend"));
    world.drawing.pad.draw();
    world.marks.draw();
    redraw();
  });
}

/** After an outage of the service, repeat the requests for everything on the page. */
function resume({ lens, pins, drawing, manifold, map }) {
  if (map.place) lens.ask(map.place);
  pins.refresh();
  drawing.refresh();
  if (manifold.shown) manifold.refresh();
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1_000);
}

async function main() {
  const service = new Service((refused) => askForKey(find("#key"), refused));
  showState(find("#status"), service);
  find("#reload").addEventListener("click", () => location.reload());
  const world = build(service, ...(await load(service)));
  write(world);
  connect(world);
  showNumbers(find("#numbers"), world);
  drawMap(world);
  document.body.classList.remove("loading");
  await tour(world.map, world.dots.centres);
}

main();
