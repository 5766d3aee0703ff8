/** Bytes of one segment on the way: an Ethernet frame without its headers. */
export const SEGMENT_LENGTH = 1460;
/** RFC 6928. */
export const FIRST_WINDOW = 10 * SEGMENT_LENGTH;
/** What Linux gives to a receiver at most, unless it is told otherwise. */
const MAX_WINDOW = 3 * 1024 * 1024;
/** RFC 9438: the window after a loss, and how fast it grows again. */
const BETA = 0.7;
const CUBIC = 0.4;
/** The shortest time after which Linux takes a segment for lost, beyond the round trip. */
const MIN_TIMEOUT_MS = 200;

/**
 * The bytes that one direction of a connection may have under way: it begins with ten segments and doubles in each round
 * trip, until a segment gets lost or the queue before the link is full; then it goes on by CUBIC (RFC 9438), as Linux
 * does. An idle connection begins anew, as on Linux.
 */
export class CongestionWindow {
  readonly #roundTripMs: () => number;
  #length = FIRST_WINDOW;
  #threshold = Infinity;
  #lengthAtCongestion = 0;
  #congestedAtMs = -Infinity;

  constructor(roundTripMs: () => number) {
    this.#roundTripMs = roundTripMs;
  }

  /** Bytes. */
  get length(): number {
    return this.#length;
  }

  /** The receiver has got so many bytes. `inFlight` are those that were under way before. */
  acknowledge(length: number, inFlight: number, nowMs: number): void {
    // A window that the sender does not fill tells nothing of the link.
    if (2 * inFlight < this.#length) return;
    const wanted = this.#length < this.#threshold ? this.#length + length : this.#cubic(nowMs);
    this.#length = Math.min(MAX_WINDOW, Math.max(this.#length, wanted));
  }

  /** A segment got lost, or the queue is full. Counts once in a round trip. */
  congest(nowMs: number): void {
    if (nowMs < this.#congestedAtMs + this.#roundTripMs()) return;
    this.#congestedAtMs = nowMs;
    this.#lengthAtCongestion = this.#length;
    this.#length = Math.max(2 * SEGMENT_LENGTH, BETA * this.#length);
    this.#threshold = this.#length;
  }

  /** The sender sends again after `idleMs` in which nothing was under way. */
  resume(idleMs: number): void {
    const timeouts = Math.floor(idleMs / (this.#roundTripMs() + MIN_TIMEOUT_MS));
    if (timeouts === 0) return;
    this.#threshold = Math.max(this.#threshold, 0.75 * this.#length);
    this.#length = Math.max(Math.min(FIRST_WINDOW, this.#length), this.#length / 2 ** timeouts);
  }

  #cubic(nowMs: number): number {
    const seconds = (nowMs - this.#congestedAtMs) / 1000;
    const top = this.#lengthAtCongestion / SEGMENT_LENGTH;
    const untilTop = Math.cbrt((top * (1 - BETA)) / CUBIC);
    const cubic = CUBIC * (seconds - untilTop) ** 3 + top;
    const reno = BETA * top + ((3 * (1 - BETA)) / (1 + BETA)) * ((1000 * seconds) / this.#roundTripMs());
    return SEGMENT_LENGTH * Math.max(cubic, reno);
  }
}
