/** What is known of the service: which model it serves, how fast it is, and whether it is up. */

// The size of the latencies' chart, in its own units.
const WIDTH = 120;
const HEIGHT = 26;

/** @param {HTMLElement} root @param {object} world */
export function showNumbers(root, world) {
  const { service } = world;
  const first = world.digest;
  service.addEventListener("answer", () => fill(root, service));
  service.addEventListener("model", () => {
    if (service.model.digest !== first) document.body.classList.add("changed");
  });
  fill(root, service);
}

/** Keep the status line up to date; it is shown before the model is known. */
export function showState(status, service) {
  const set = (state, text) => {
    status.dataset.state = state;
    document.body.classList.toggle("down", state === "down");
    status.lastElementChild.textContent = text;
  };
  const tell = () => set("up", "live");
  const lost = (event) => set("down", `The service is down (${event.detail}). Looking for it …`);
  service.addEventListener("up", tell);
  service.addEventListener("down", lost);
  service.addEventListener("answer", () => service.down || tell());
}

function fill(root, { model, latencies, p50, exchange }) {
  const put = (name, text) => (root.querySelector(`[data-figure=${name}]`).textContent = text);
  if (!latencies.length) return;
  put("digest", model.digest.slice(0, 12));
  root.querySelector("[data-figure=digest]").title = model.digest;
  put("version", model.version);
  put("precision", model.precision);
  put("p50", `${p50.toFixed(p50 < 10 ? 1 : 0)} ms`);
  put("exchange", `POST /predictions/${exchange.endpoint}, ${exchange.ms.toFixed(0)} ms`);
  root.querySelector("path").setAttribute("d", line(latencies));
}

/** The newest latencies as an SVG path, the slowest at the top. */
function line(latencies) {
  const slowest = Math.max(...latencies);
  const x = (index) => (index / Math.max(latencies.length - 1, 1)) * WIDTH;
  const y = (ms) => HEIGHT - 1 - (ms / slowest) * (HEIGHT - 2);
  return latencies.map((ms, i) => `${i ? "L" : "M"}${x(i).toFixed(1)},${y(ms).toFixed(1)}`).join("");
}
