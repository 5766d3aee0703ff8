/** The shortest time between two lines of the same kind, in ms. */
const PAUSE_MS = 60_000;

/** A line that may come many times: it is written at first, and then once a minute at most, with a count. */
export class RepeatedLine {
  #kind: string | undefined;
  #writtenAtMs = -Infinity;
  #times = 0;

  /** Counts the line. Returns how often it came since it was last written, if it is to be written now. */
  times(kind: string): number | undefined {
    const nowMs = performance.now();
    this.#times = kind === this.#kind ? this.#times + 1 : 1;
    if (kind === this.#kind && nowMs - this.#writtenAtMs < PAUSE_MS) return undefined;
    const times = this.#times;
    this.#kind = kind;
    this.#writtenAtMs = nowMs;
    this.#times = 0;
    return times;
  }
}
