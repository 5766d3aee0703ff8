/** One direction of a link: all connections share its rate, and what comes too fast waits in one queue. */
export class Bottleneck {
  readonly #bytesPerSecond: () => number;
  #freeAtMs = 0;
  #inFlight = 0;
  #flows = 0;

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

  /**
   * Counts what one flow has under way, and had before: in bytes. Links outside share alike by queues of their own for
   * each flow; here a full queue shrinks those flows only that have more under way than the average.
   */
  count(inFlight: number, before: number): void {
    this.#inFlight += inFlight - before;
    this.#flows += Number(inFlight > 0) - Number(before > 0);
  }

  /** What each of the flows that have bytes under way would have if all had the same. */
  get fairShare(): number {
    return this.#inFlight / Math.max(1, this.#flows);
  }
}
