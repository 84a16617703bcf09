/**
  * The service's public HTTP API, as any program could call it: files or arrays in, arrays out.
  *
  * Events: "answer" after every answer of the model; "model" after every reply that says whose it is,
  * refusals among them; "down" and "up" when an outage begins and ends.
 */

import { pack, unpack } from "./npy.js";
import { pause } from "./pace.js";

const NPY = "application/x-npy";
const FILE = "application/octet-stream"; // For a file of unknown type; the service reads its content.
const KEY = "pinhole-api-key"; // In sessionStorage: deleted when the tab is closed.
const TIMEOUT_MS = 15_000; // Of an answer, beside the time that the request takes on a slow line.
const SLOWEST_BYTES_A_MS = 20;
const MAP_TIMEOUT_MS = 300_000; // A map of ten thousand long embeddings has several megabytes.
const PROBE_MS = 1_500; // The pause between probes of a service that is down.
const TRIES = 5; // Of a request that a busy service refuses.
const REMEMBERED = 50; // Latencies.

/** The service refused a request; `message` can be shown to the user. */
export class Refused extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The service can't be reached, or can't work now. It is being probed; "up" tells of its return. */
export class Unavailable extends Error {}

/** Ignore errors that the status line shows, and throw any other: it is a fault of the page. */
export function tolerate(error) {
  if (!(error instanceof Refused || error instanceof Unavailable)) throw error;
}

export class Service extends EventTarget {
  #key = sessionStorage.getItem(KEY);
  #askForKey;
  #asking = null;

  /** The newest REMEMBERED latencies in milliseconds, oldest first. */
  latencies = [];
  /** The model that the newest reply came from. */
  model = { digest: "", version: "", precision: "" };
  /** The newest request that the model answered, for display: {endpoint, ms}. */
  exchange = null;
  down = false;

  /** @param {(refused: boolean) => Promise<string>} askForKey gets the API key from the user */
  constructor(askForKey) {
    super();
    this.#askForKey = askForKey;
  }

  /** The model's description: GET /v2/models/embed. */
  async describe() {
    return this.#read(await this.#fetch("v2/models/embed"), "json");
  }

  /** The test images' embeddings and labels. */
  async map() {
    return this.#read(await this.#fetch("map.json"), "json");
  }

  /** @param {number[][]} embeddings [N, D] @returns {Promise<Uint8Array[]>} N × [C, H, W] */
  async decode(embeddings) {
    const width = embeddings[0].length;
    const body = pack(Float32Array.from(embeddings.flat()), [embeddings.length, width]);
    const { data, shape } = await this.#predict("decode", body, NPY);
    const size = shape.slice(1).reduce((a, b) => a * b, 1);
    return embeddings.map((_, index) => data.subarray(index * size, (index + 1) * size));
  }

  /** @param {Blob} file an image file @returns {Promise<number[]>} [D] */
  async embed(file) {
    return [...(await this.#predict("embed", file, typeOf(file))).data];
  }

  /**
   * What the model saw of an image file, and the pixels that it remembers; both are [C, H, W].
   *
   * @param {Blob} file
   * @returns {Promise<{
   *   seen: Uint8Array, pixels: Uint8Array, mse: number, percentile: number, outlier: boolean
   * }>}
   */
  async reconstruct(file) {
    const seen = { "X-Seen": "true" };
    const { data, headers } = await this.#predict("reconstruct", file, typeOf(file), seen);
    return {
      seen: data.subarray(0, data.length / 2),
      pixels: data.subarray(data.length / 2),
      mse: Number(headers.get("X-Mse")),
      percentile: Number(headers.get("X-Percentile")),
      outlier: headers.has("X-Outlier-Indices"),
    };
  }

  /** The median of the newest latencies, in milliseconds. */
  get p50() {
    const sorted = [...this.latencies].sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)];
  }

  /** Resolves once the service is up: at once, if it is. */
  async returned() {
    if (this.down) await new Promise((done) => this.addEventListener("up", done, { once: true }));
  }

  async #predict(endpoint, body, type, more = {}) {
    const headers = { "Content-Type": type, Accept: NPY, ...more };
    const started = performance.now();
    const reply = await this.#fetch(`predictions/${endpoint}`, { method: "POST", body, headers });
    const array = unpack(await this.#read(reply, "arrayBuffer"));
    const ms = performance.now() - started;
    this.latencies = [...this.latencies, ms].slice(-REMEMBERED);
    this.exchange = { endpoint, ms };
    this.dispatchEvent(new Event("answer"));
    return { ...array, headers: reply.headers };
  }

  /** Fetch a reply with status 200; any other outcome becomes an exception. */
  async #fetch(path, request = {}) {
    for (let tries = 1; ; tries++) {
      const key = this.#key;
      const authorization = key ? { Authorization: `Bearer ${key}` } : {};
      const headers = { ...request.headers, ...authorization };
      const reply = await this.#send(path, { ...request, headers });
      this.#meet(reply);
      if (reply.ok) return reply;
      if (reply.status === 401) await this.#renewKey(key);
      else if (reply.status === 429 && tries < TRIES) await pause(retryAfterMs(reply));
      else throw await this.#refusal(reply);
    }
  }

  #meet({ headers }) {
    const digest = headers.get("X-Model-Digest");
    if (!digest) return;
    const [version, precision] = ["X-Model-Version", "X-Precision"].map((name) => headers.get(name) ?? "");
    this.model = { digest, version, precision };
    this.dispatchEvent(new Event("model"));
  }

  async #send(path, request) {
    const bytes = request.body?.size ?? request.body?.byteLength ?? 0;
    const ms = path === "map.json" ? MAP_TIMEOUT_MS : TIMEOUT_MS + bytes / SLOWEST_BYTES_A_MS;
    try {
      return await fetch(path, { ...request, signal: AbortSignal.timeout(ms) });
    } catch (error) {
      throw this.#lost(error);
    }
  }

  async #read(reply, as) {
    try {
      return await reply[as]();
    } catch (error) {
      throw this.#lost(error); // The connection broke within the answer.
    }
  }

  #lost(error) {
    this.#watch("no answer");
    const late = error.name === "TimeoutError";
    return new Unavailable(`The service ${late ? "took too long" : "can't be reached"}.`, { cause: error });
  }

  async #refusal(reply) {
    const { message } = await reply.json().catch(() => ({}));
    const reason = message ?? `HTTP ${reply.status}`;
    if (reply.status <= 500) return new Refused(reason, reply.status); // A 500 is of this request only.
    this.#watch(reason);
    return new Unavailable(reason);
  }

  /** Ask the user for another key; once, even if several requests were refused at the same time. */
  async #renewKey(refused) {
    if (this.#key !== refused) return; // The user has entered another key for another request.
    this.#asking ??= this.#askForKey(refused !== null).finally(() => (this.#asking = null));
    this.#key = await this.#asking;
    sessionStorage.setItem(KEY, this.#key);
  }

  /** Announce that the service is down, and probe it until it is back. */
  async #watch(reason) {
    if (this.down) return;
    this.down = true;
    this.dispatchEvent(new CustomEvent("down", { detail: reason }));
    do await pause(PROBE_MS);
    while (!(await this.#isReady()));
    this.down = false;
    this.dispatchEvent(new Event("up"));
  }

  async #isReady() {
    try {
      const authorization = this.#key ? { Authorization: `Bearer ${this.#key}` } : {};
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      return (await fetch("ready", { headers: authorization, signal })).ok;
    } catch {
      return false; // The service doesn't answer yet.
    }
  }
}

function typeOf(file) {
  return file.type.startsWith("image/") ? file.type : FILE;
}

function retryAfterMs(reply) {
  const seconds = Number(reply.headers.get("Retry-After"));
  return 1_000 * Math.min(Math.max(seconds || 0, 0.2), 5);
}
