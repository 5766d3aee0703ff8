/**
 * Calls `onStall` when nothing has moved for `timeoutMs`, from the construction to the disposal. `pat` says that
 * something has moved; the time between `pause` and `resume` does not count.
 *
 * It is ours since the timeouts of sockets and of undici count the time in which the reader is busy, or never end when
 * the peer takes nothing.
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

  /** Starts the whole time anew. */
  resume(): void {
    this.#timer ??= setTimeout(this.#onStall, this.#timeoutMs);
  }

  [Symbol.dispose](): void {
    this.pause();
  }
}
