/**
 * Requests that a transfer has under way at first, and at the most. Seven connections and that of the Resource API are
 * eight handshakes, as many as one client may cost.
 */
export const MIN_PARALLEL = 4;
export const MAX_PARALLEL = 7;
/** By how much one more request must raise the rate for another one. */
const WORTHWHILE = 1.1;
/** How long what was found holds without use, in ms: as long as idle connections are kept. */
const KEPT_MS = 60_000;

/**
 * How many requests of each transfer in one direction are under way side by side: one more is tried, and another one as
 * long as the last one has raised the rate. A connection brings no more than its window in a round trip, so a fast link
 * far away wants several, while any other would only get more memory and more handshakes.
 *
 * The rate is the sum of those of as many requests as are under way. As many before them do not count, since the windows
 * of new connections grow meanwhile. So no length of time must be chosen. What was found holds for the next transfer, which
 * needs no further connection then.
 */
export class Parallelism {
  #count = MIN_PARALLEL;
  #finished = 0;
  /** Bytes per ms. */
  #rate = 0;
  /** With one request less; infinite when no more are tried. */
  #earlierRate = 0;
  #usedAtMs = -Infinity;

  get count(): number {
    return this.#count;
  }

  /** A transfer begins: with the number that was found before, unless the connections of the last one are gone. */
  begin(): void {
    if (performance.now() - this.#usedAtMs > KEPT_MS) {
      this.#count = MIN_PARALLEL;
      this.#earlierRate = 0;
    }
    this.#usedAtMs = performance.now();
    this.#finished = 0; // The windows of idle connections have shrunk.
    this.#rate = 0;
  }

  /** Notes a request that has moved `length` bytes in so many ms. */
  finish(length: number, ms: number): void {
    this.#usedAtMs = performance.now();
    this.#finished++;
    if (this.#finished > this.#count) this.#rate += length / ms;
    if (this.#finished < 2 * this.#count) return;
    const isWorthwhile = this.#rate > WORTHWHILE * this.#earlierRate;
    this.#earlierRate = isWorthwhile ? this.#rate : Infinity;
    if (isWorthwhile) this.#count = Math.min(MAX_PARALLEL, this.#count + 1);
    this.#finished = 0;
    this.#rate = 0;
  }
}
