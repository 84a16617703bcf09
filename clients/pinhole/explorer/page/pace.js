/**
  * Make one call at a time, always with the newest argument.
  *
  * An argument that comes while a call is running replaces the argument that was waiting, so a hand
  * that moves faster than the service never makes a queue.
 *
 * @template T
  * @param {(argument: T) => Promise<void>} run handles its own errors
 * @returns {(argument: T) => Promise<void>}
 */
export function latest(run) {
  let busy = false;
  let waiting = null;
  return async (argument) => {
    waiting = { argument };
    if (busy) return;
    busy = true;
    try {
      while (waiting) {
        const next = waiting.argument;
        waiting = null;
        await run(next);
      }
    } finally {
      busy = false;
    }
  };
}

/** @param {number} ms */
export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
  * Run when the last request to run is `ms` milliseconds old.
 *
 * @param {number} ms
 * @param {(...arguments: any[]) => void} run
 */
export function settled(ms, run) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(run, ms, ...values);
  };
}

/**
  * Run at most once in each frame of the screen, however often it is requested.
 *
 * @param {() => void} run
 */
export function oncePerFrame(run) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      run();
    });
  };
}
