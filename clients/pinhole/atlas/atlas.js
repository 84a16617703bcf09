/** The atlas: a map of a job's embeddings, with the nearest image's thumbnail and path at the pointer. */

const atlas = JSON.parse(document.querySelector("#data").textContent);
const REACH_PX = 24; // A point within this distance of the pointer is shown.
const SHARP_PX = 48; // Pictures smaller than this are enlarged without smoothing.
const find = (selector) => document.querySelector(selector);

const plane = new Plane(atlas.embeddings, atlas.embeddings[0].length);
const points = toPoints(atlas.embeddings, atlas.labels, plane);
const dots = new Dots(points, plane.width);
const map = new MapView(find("#map"), points);
const tree = d3.quadtree(
  points.places.map(([x, y], index) => ({ x, y, index })),
  (point) => point.x,
  (point) => point.y,
);

const draw = oncePerFrame(() => {
  const context = map.context("dots");
  dots.draw(context, map.view);
  dots.drawNames(context, map.view);
  dots.drawTicks(context, map.view);
});

/** The point nearest to the crosshair, or null if none is within REACH_PX. */
function nearest() {
  const [x, y] = map.place;
  const found = tree.find(x, y);
  if (!found) return null;
  const away = Math.hypot(map.x(found.x) - map.crosshair[0], map.y(found.y) - map.crosshair[1]);
  return away <= REACH_PX ? found : null;
}

function show() {
  const lens = find("#lens");
  const point = nearest();
  const context = map.context("marks");
  lens.hidden = !point;
  if (!point) return;
  const [left, top] = [map.x(point.x), map.y(point.y)];
  context.beginPath();
  context.arc(left, top, 7, 0, 2 * Math.PI);
  context.strokeStyle = dots.colours.ink;
  context.lineWidth = 2;
  context.stroke();
  fill(lens, point.index);
  const right = left + 20 + lens.offsetWidth < map.width;
  const above = top - 20 - lens.offsetHeight > 0;
  const x = right ? left + 20 : Math.max(left - 20 - lens.offsetWidth, 4);
  lens.style.transform = `translate(${x}px, ${above ? top - 20 - lens.offsetHeight : top + 20}px)`;
}

function fill(lens, index) {
  const picture = lens.querySelector("img");
  const thumbnail = atlas.thumbnails[index];
  picture.hidden = !thumbnail;
  if (thumbnail) picture.src = `data:image/webp;base64,${thumbnail}`;
  picture.style.imageRendering = picture.naturalWidth < SHARP_PX ? "pixelated" : "auto";
  lens.querySelector("figcaption").textContent = atlas.paths[index];
  find("#live").textContent = atlas.paths[index];
}

fillLegend(find("#legend"), dots, draw);
find("#lead").textContent = `${points.places.length.toLocaleString("en")} images, each where its embedding lies. Point at a dot to see its image${atlas.seen ? " as the model saw it" : ""}.`;
find("#note").textContent = plane.width > 2
  ? `The two directions in which their ${plane.width} numbers differ most: ${Math.round(100 * plane.share)} % of the variance.`
  : "";
map.addEventListener("view", draw);
map.addEventListener("move", show);
onSchemeChange(() => {
  dots.refresh();
  recolourLegend(find("#legend"));
  draw();
});
draw();
