/**
 * Calls `onStall` when nothing has moved for `timeoutMs`.
 *
 * It runs from its construction. `pat` says that something moved; `pause` and `resume` enclose a time that does not count.
 * After the disposal it never calls.
 */
export class StallTimer implements Disposable {
  readonly #timeoutMs: number;
  readonly #onStall: () => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(timeoutMs: number, onStall: () => void) {
    this.#timeoutMs = timeoutMs;
    this.#onStall = onStall;
    this.resume();
  }

  pat(): void {
    this.#timer?.refresh();
  }

  pause(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** The whole time counts anew. */
  resume(): void {
    this.#timer ??= setTimeout(this.#onStall, this.#timeoutMs);
  }

  [Symbol.dispose](): void {
    this.pause();
  }
}
