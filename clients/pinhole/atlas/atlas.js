/** The atlas: a map of a job's embeddings, with the nearest image's thumbnail and path at the pointer. */

const atlas = JSON.parse(document.querySelector("#data").textContent);
const REACH_PX = 24; // A point within this distance of the pointer is shown.
const SHARP_PX = 48; // Pictures smaller than this are enlarged without smoothing.
const find = (selector) => document.querySelector(selector);

const plane = new Plane(atlas.embeddings, atlas.embeddings[0].length);
const points = toPoints(atlas.embeddings, atlas.labels, plane);
const dots = new Dots(points, plane.width);
const map = new MapView(find("#map"), points);

const draw = oncePerFrame(() => {
  const context = map.context("dots");
  dots.draw(context, map.view);
  dots.drawNames(context, map.view);
  dots.drawTicks(context, map.view);
});

/** The index of the point nearest to the crosshair, or null if none is within REACH_PX. */
function nearest() {
  const [[left, top], [right, down]] = [map.place, [map.x(1) - map.x(0), map.y(1) - map.y(0)]];
  let index = -1;
  let least = REACH_PX ** 2;
  points.places.forEach(([x, y], candidate) => {
    const away = ((x - left) * right) ** 2 + ((y - top) * down) ** 2;
    if (away <= least) [index, least] = [candidate, away];
  });
  return index < 0 ? null : index;
}

function show() {
  const lens = find("#lens");
  const index = nearest();
  const context = map.context("marks");
  lens.hidden = index === null;
  if (index === null) return;
  const [x, y] = points.places[index];
  const [left, top] = [map.x(x), map.y(y)];
  context.beginPath();
  context.arc(left, top, 7, 0, 2 * Math.PI);
  context.strokeStyle = dots.colours.ink;
  context.lineWidth = 2;
  context.stroke();
  fill(lens, index);
  const right = left + 20 + lens.offsetWidth < map.width;
  const above = top - 20 - lens.offsetHeight > 0;
  const across = right ? left + 20 : Math.max(left - 20 - lens.offsetWidth, 4);
  const down = above ? top - 20 - lens.offsetHeight : Math.min(top + 20, map.height - lens.offsetHeight - 4);
  lens.style.transform = `translate(${across}px, ${Math.max(down, 4)}px)`;
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

const drawn = atlas.thumbnails.some(Boolean);
const pointed = drawn ? `its image${atlas.seen ? " as the model saw it" : ""}` : "its path: no image could be read";
fillLegend(find("#legend"), dots, draw);
find("#lead").textContent = `${points.places.length.toLocaleString("en")} images, each where its embedding lies. Point at a dot to see ${pointed}.${atlas.named ? " Its colour is that of the model’s own test image nearest to it." : ""}`;
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
