/**
 * The service's public HTTP API, called as any program could call it: arrays in, arrays out.
 *
 * Events: "answer" after every reply of the model, "down" and "up" as the service goes and comes.
 */

import { pack, unpack } from "./npy.js";
import { pause } from "./pace.js";

const NPY = "application/x-npy";
const FILE = "application/octet-stream"; // whatever it is: the service looks inside
const KEY = "pinhole-api-key"; // in sessionStorage: gone when the tab is closed
const TIMEOUT_MS = 15_000;
const PROBE_MS = 1_500; // between looks whether a service that was down is back
const TRIES = 5; // of a request that the service is too busy for
const REMEMBERED = 50; // latencies

/** The service said no: `message` is fit to be shown. */
export class Refused extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Nobody answered, or the service can't work now. It is being watched: wait for "up". */
export class Unavailable extends Error {}

/** Let pass what the status line tells anyway; a fault of the page's own is thrown on. */
export function tolerate(error) {
  if (!(error instanceof Refused || error instanceof Unavailable)) throw error;
}

export class Service extends EventTarget {
  #key = sessionStorage.getItem(KEY);
  #askForKey;
  #asking = null;

  /** The newest REMEMBERED latencies in milliseconds, oldest first. */
  latencies = [];
  /** What the newest reply said of the model. */
  model = { digest: "", version: "", precision: "" };
  /** The newest request of the model, for people. */
  exchange = null;
  down = false;

  /** @param {(refused: boolean) => Promise<string>} askForKey gets the API key from the user */
  constructor(askForKey) {
    super();
    this.#askForKey = askForKey;
  }

  /** What the model takes and gives: GET /v2/models/embed. */
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

  /**
   * @param {Uint8Array | Blob} image pixels [C, H, W], or an image file
   * @param {number[]} shape of the pixels
   * @returns {Promise<number[]>} [D]
   */
  async embed(image, shape) {
    const [body, type] = toBody(image, shape);
    return [...(await this.#predict("embed", body, type)).data];
  }

  /**
   * As embed.
   *
   * @returns {Promise<{pixels: Uint8Array, mse: number, percentile: number, outlier: boolean}>}
   */
  async reconstruct(image, shape) {
    const [body, type] = toBody(image, shape);
    const { data, headers } = await this.#predict("reconstruct", body, type);
    return {
      pixels: data,
      mse: Number(headers.get("X-Mse")),
      percentile: Number(headers.get("X-Percentile")),
      outlier: headers.has("X-Outliers"),
    };
  }

  /** The median of the newest latencies, in milliseconds. */
  get p50() {
    const sorted = [...this.latencies].sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)];
  }

  async #predict(endpoint, body, type) {
    const headers = { "Content-Type": type, Accept: NPY };
    const started = performance.now();
    const reply = await this.#fetch(`predictions/${endpoint}`, { method: "POST", body, headers });
    const array = unpack(await this.#read(reply, "arrayBuffer"));
    const ms = performance.now() - started;
    this.latencies = [...this.latencies, ms].slice(-REMEMBERED);
    this.model = {
      digest: reply.headers.get("X-Model-Digest") ?? "",
      version: reply.headers.get("X-Model-Version") ?? "",
      precision: reply.headers.get("X-Precision") ?? "",
    };
    this.exchange = { endpoint, ms };
    this.dispatchEvent(new Event("answer"));
    return { ...array, headers: reply.headers };
  }

  /** A reply with status 200; everything else becomes an exception. */
  async #fetch(path, request = {}) {
    for (let tries = 1; ; tries++) {
      const key = this.#key;
      const authorization = key ? { Authorization: `Bearer ${key}` } : {};
      const headers = { ...request.headers, ...authorization };
      const reply = await this.#send(path, { ...request, headers });
      if (reply.ok) return reply;
      if (reply.status === 401) await this.#renewKey(key);
      else if (reply.status === 429 && tries < TRIES) await pause(retryAfterMs(reply));
      else throw await this.#refusal(reply);
    }
  }

  async #send(path, request) {
    try {
      return await fetch(path, { ...request, signal: AbortSignal.timeout(TIMEOUT_MS) });
    } catch (error) {
      throw this.#lost(error);
    }
  }

  async #read(reply, as) {
    try {
      return await reply[as]();
    } catch (error) {
      throw this.#lost(error); // it went away in the middle of its answer
    }
  }

  #lost(error) {
    this.#watch("no answer");
    return new Unavailable("The service can't be reached.", { cause: error });
  }

  async #refusal(reply) {
    const { message } = await reply.json().catch(() => ({}));
    const reason = message ?? `HTTP ${reply.status}`;
    if (reply.status <= 500) return new Refused(reason, reply.status); // 500: of this request alone
    this.#watch(reason);
    return new Unavailable(reason);
  }

  /** Several requests may be refused at once; the user is asked once. */
  async #renewKey(refused) {
    if (this.#key !== refused) return; // another request has already brought a new one
    this.#asking ??= this.#askForKey(refused !== null).finally(() => (this.#asking = null));
    this.#key = await this.#asking;
    sessionStorage.setItem(KEY, this.#key);
  }

  /** Say that the service is down, and look for it until it is back. */
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
      return (await fetch("ready", { headers: authorization })).ok;
    } catch {
      return false; // nobody there yet
    }
  }
}

function toBody(image, shape) {
  if (image instanceof Blob) return [image, image.type.startsWith("image/") ? image.type : FILE];
  return [pack(image, [1, ...shape]), NPY];
}

function retryAfterMs(reply) {
  const seconds = Number(reply.headers.get("Retry-After"));
  return 1_000 * Math.min(Math.max(seconds || 0, 0.2), 5);
}
