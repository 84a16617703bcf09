/** Image files, dropped on the page or chosen: each becomes a dot and a row, or an error message. */

import { company, toParagraph, verdict } from "./drawing.js";
import { paint } from "./paint.js";
import { neighbours } from "./points.js";
import { Refused, Unavailable, tolerate } from "./service.js";

const PARALLEL_FILES = 2; // Files that are being embedded at a time.
const TRIES = 3; // Of each request about a file, in as many outages of the service.
const MAX_ROWS = 200; // Older rows are removed from the page.
const THUMBNAIL_PX = 96;
// A row's pictures, from left to right: the canvas's class, and what it shows.
const PICTURES = { file: "the file", seen: "what the model saw", remembered: "what it remembers" };

export class Files {
  #waiting = [];
  #running = 0;

  /** @param {HTMLElement} root @param {HTMLElement} veil shown while files hover over the page */
  constructor(root, veil, world) {
    this.list = root.querySelector("ul");
    this.world = world;
    const input = root.querySelector("input");
    root.querySelector("button").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.add(input.files);
      input.value = "";
    });
    this.#listen(veil);
  }

  /** @param {Iterable<File>} files */
  add(files) {
    this.#waiting.push(...files);
    while (this.#running < PARALLEL_FILES && this.#waiting.length) this.#work();
  }

  #listen(veil) {
    const carries = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      veil.hidden = false;
    });
    addEventListener("dragleave", (event) => event.relatedTarget || (veil.hidden = true));
    addEventListener("drop", (event) => {
      veil.hidden = true;
      if (!carries(event)) return;
      event.preventDefault();
      this.add(event.dataTransfer.files);
    });
  }

  async #work() {
    this.#running++;
    while (this.#waiting.length) await this.#read(this.#waiting.shift());
    this.#running--;
  }

  async #read(file) {
    const row = this.#addRow(file);
    const { service, image } = this.world;
    try {
      await this.#check(file);
      const embedding = await patiently(service, () => service.embed(file));
      const answer = await patiently(service, () => service.reconstruct(file));
      paint(row.querySelector(".seen"), answer.seen, image);
      paint(row.querySelector(".remembered"), answer.pixels, image);
      await drawThumbnail(row.querySelector(".file"), file);
      this.#succeed(row, embedding, answer);
    } catch (error) {
      this.#fail(row, file, error);
      tolerate(error);
    }
  }

  /** Refuse a file over the limit, a folder and what can't be read, without sending it. */
  async #check(file) {
    const { body_bytes: most } = this.world.limits;
    const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
    if (file.size > most) throw new Refused(`${megabytes(file.size)}; the limit is ${megabytes(most)}`, 413);
    const start = await file.slice(0, 1).arrayBuffer().catch(() => null);
    if (!start) throw new Refused("It can't be read. Of a folder, drop the files in it.", 0);
  }

  #succeed(row, embedding, answer) {
    const { plane, points, names, marks, map, say } = this.world;
    const place = plane.project(embedding);
    const votes = neighbours(points.embeddings, points.labels, embedding);
    const lines = verdict(answer, votes, names);
    row.querySelector("div").append(...lines.map(toParagraph));
    marks.own.push({ place, latest: false });
    marks.draw();
    row.querySelector("button").addEventListener("click", () => map.reveal(place));
    say(`${row.title}: ${answer.outlier || !votes.length ? lines[0].text : company(votes, names)}`);
  }

  #fail(row, file, error) {
    row.classList.add("failed");
    row.querySelector("button").replaceWith("!");
    const reason = error.message;
    row.querySelector("div").append(toParagraph({ text: reason, kind: "reason" }));
    this.world.say(`${file.name} failed: ${reason}`);
  }

  #addRow(file) {
    const row = document.createElement("li");
    row.title = file.name;
    const show = document.createElement("button");
    const pictures = Object.values(PICTURES).join(", ");
    show.setAttribute("aria-label", `Show ${file.name} on the map. Pictures: ${pictures}`);
    for (const [name, title] of Object.entries(PICTURES)) {
      show.append(Object.assign(document.createElement("canvas"), { className: name, title }));
    }
    const words = document.createElement("div");
    words.append(toParagraph({ text: file.name, kind: "name" }));
    row.append(show, words);
    this.list.prepend(row);
    while (this.list.children.length > MAX_ROWS) this.list.lastChild.remove();
    return row;
  }
}

/** Ask; where the service is down or has gone, ask again once it is back, TRIES times in all. */
async function patiently(service, ask) {
  for (let tries = 1; ; tries++) {
    await service.returned();
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof Unavailable) || tries === TRIES) throw error;
    }
  }
}

/** Draw the file as the browser shows it; nothing if it can't: the service reads more formats. */
async function drawThumbnail(canvas, file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return;
  const scale = THUMBNAIL_PX / Math.max(bitmap.width, bitmap.height);
  canvas.width = Math.max(1, bitmap.width * scale);
  canvas.height = Math.max(1, bitmap.height * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = scale < 1;
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}
