/** One direction of a link: all connections share its rate, and what comes too fast waits in one queue. */
export class Bottleneck {
  readonly #bytesPerSecond: () => number;
  #freeAtMs = 0;

  constructor(bytesPerSecond: () => number) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Sends bytes that come at `nowMs`. Returns the time at which the last of them has gone through. */
  send(length: number, nowMs: number): number {
    this.#freeAtMs = Math.max(this.#freeAtMs, nowMs) + (1000 * length) / this.#bytesPerSecond();
    return this.#freeAtMs;
  }

  /** How long a byte that comes at `nowMs` must wait. */
  queueMs(nowMs: number): number {
    return Math.max(0, this.#freeAtMs - nowMs);
  }
}
