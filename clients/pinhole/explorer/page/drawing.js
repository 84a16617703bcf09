/** The user's drawing, what the model saw of it and remembers, and how unusual it is. */

import { figure } from "./dots.js";
import { written } from "./lens.js";
import { latest, settled } from "./pace.js";
import { Pad } from "./pad.js";
import { paint } from "./paint.js";
import { neighbours } from "./points.js";
import { Refused, tolerate } from "./service.js";

const PAUSE_MS = 250; // The hand has to rest this long before the verdict is written.

export class Drawing {
  /** @param {HTMLElement} root @param {object} world */
  constructor(root, world) {
    this.root = root;
    this.world = world;
    this.mark = null;
    this.refresh = latest(() => this.#ask());
    this.judge = settled(PAUSE_MS, () => this.#writeVerdict());
    this.pad = new Pad(root.querySelector("#pad"), () => this.#changed());
    root.querySelector("#undo").addEventListener("click", () => this.pad.undo());
    root.querySelector("#clear").addEventListener("click", () => this.pad.clear());
  }

  #changed() {
    const empty = !this.pad.strokes.length;
    this.root.classList.toggle("empty", empty);
    for (const id of ["#undo", "#clear"]) this.root.querySelector(id).disabled = empty;
    if (empty) this.#forget();
    else this.refresh();
  }

  #forget() {
    const { marks } = this.world;
    this.answer = null;
    marks.own = marks.own.filter((mark) => mark !== this.mark);
    this.mark = null;
    marks.draw();
    this.root.querySelector("#verdict").replaceChildren();
    for (const canvas of this.root.querySelectorAll("#seen, #remembered")) {
      canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    }
  }

  /** Embed and reconstruct what the pad holds now. */
  async #ask() {
    const { service } = this.world;
    if (!this.pad.strokes.length || service.down) return;
    try {
      const file = await this.pad.toPng();
      this.#show(...(await Promise.all([service.embed(file), service.reconstruct(file)])));
    } catch (error) {
      if (error instanceof Refused && this.pad.strokes.length) this.#showRefusal(error.message);
      tolerate(error); // The status line shows the outage; the "up" event repeats the request.
    }
  }

  #show(embedding, answer) {
    if (!this.pad.strokes.length) return; // The pad was cleared while the service answered.
    this.answer = { ...answer, embedding };
    paint(this.root.querySelector("#seen"), answer.seen, this.world.image);
    paint(this.root.querySelector("#remembered"), answer.pixels, this.world.image);
    this.#place(embedding);
    this.judge();
  }

  /** Say why the service refused the drawing, as it does if it finds no ink. */
  #showRefusal(reason) {
    this.#forget();
    this.root.querySelector("#verdict").append(toParagraph(reason));
    this.world.say(reason);
  }

  /** Put the drawing's dot on the map. */
  #place(embedding) {
    const { marks, plane } = this.world;
    this.mark ??= { latest: true };
    this.mark.place = plane.project(embedding);
    if (!marks.own.includes(this.mark)) marks.own.push(this.mark);
    marks.draw();
  }

  #writeVerdict() {
    if (!this.answer) return; // The pad was cleared, or the service refused a later drawing.
    const { plane, points, names, say } = this.world;
    const { embedding } = this.answer;
    const votes = neighbours(points.embeddings, points.labels, embedding);
    const lines = verdict(this.answer, votes, names);
    const place = written(embedding, plane.project(embedding), points.digits);
    const where = `Your drawing is at ${place}.`;
    this.root.querySelector("#verdict").replaceChildren(...lines.map(toParagraph), toParagraph(where));
    say(`${where} ${lines.map((line) => line.text ?? line).join(" ")}`);
  }
}

/**
  * The sentences about a reconstructed picture.
 *
 * @returns {({text: string, kind: string})[]}
 */
export function verdict({ mse, percentile, outlier }, votes, names) {
  const lines = [];
  if (outlier) lines.push({ text: "It has never seen anything like this.", kind: "outlier" });
  else if (votes.length) lines.push({ text: company(votes, names), kind: "company" });
  const share = `${figure(percentile, 0)}\u00a0% of known images`;
  const others = percentile >= 99.95 ? "any known image" : share;
  lines.push({ text: `mse ${figure(mse, 4)}, above ${others}.`, kind: "figures" });
  return lines;
}

/** E.g. "It lies among 7s: 10 of its 10 nearest neighbours." */
export function company(votes, names) {
  const [first] = votes;
  const all = votes.reduce((sum, vote) => sum + vote.count, 0);
  return `It lies among ${names(first.label)}: ${first.count} of its ${all} nearest neighbours.`;
}

/** @param {string | {text: string, kind: string}} line */
export function toParagraph(line) {
  const paragraph = document.createElement("p");
  paragraph.textContent = line.text ?? line;
  if (line.kind) paragraph.className = line.kind;
  return paragraph;
}
