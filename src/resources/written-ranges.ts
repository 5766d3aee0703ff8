import { unlessAborted } from '../async/abort.ts';
import { Changes } from '../async/changes.ts';

/**
 * Which bytes of a file are written, where several ranges of it are written side by side, and who waits for them. The
 * ranges have equal lengths, but for the last one.
 */
export class WrittenRanges {
  readonly #length: number;
  readonly #rangeLength: number;
  /** Bytes from the beginning of each range. */
  readonly #written: number[];
  readonly #changes = new Changes();
  #bytes = 0;
  /** All ranges before this one are complete. */
  #firstOpen = 0;
  #failure: Error | undefined;

  constructor(length: number, rangeLength: number) {
    this.#length = length;
    this.#rangeLength = rangeLength;
    this.#written = new Array<number>(Math.ceil(length / rangeLength)).fill(0);
  }

  /** Bytes that are written, of all ranges together. */
  get bytes(): number {
    return this.#bytes;
  }

  /** All bytes before this position are written. */
  get available(): number {
    return this.#firstOpen * this.#rangeLength + (this.#written[this.#firstOpen] ?? 0);
  }

  get isComplete(): boolean {
    return this.#bytes === this.#length;
  }

  /** The first failure that was told. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Notes that the first `written` bytes of a range are there; that number must not go back. */
  advance(range: number, written: number): void {
    this.#bytes += written - (this.#written[range] ?? 0);
    this.#written[range] = written;
    while (this.#written[this.#firstOpen] === this.#rangeLength) this.#firstOpen++;
    this.#changes.announce();
  }

  /** Notes that the missing bytes will not come. Those who wait for them get the first failure that is told. */
  fail(failure: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = failure;
    this.#changes.announce();
  }

  /** Waits until all bytes before `position` are written. @throws the failure; the reason of `signal` */
  async reach(position: number, signal: AbortSignal): Promise<void> {
    while (this.available < position) {
      const change = this.#changes.next;
      if (this.#failure !== undefined) throw this.#failure;
      await unlessAborted(change, signal);
    }
  }

  /**
   * Yields the number of written bytes, of all ranges together: at once, and after each change, until all are written.
   * A slow consumer misses numbers in between, never the last one.
   *
   * @throws the failure; the reason of `signal`
   */
  async *progress(signal: AbortSignal): AsyncGenerator<number, void, undefined> {
    for (;;) {
      const change = this.#changes.next;
      signal.throwIfAborted();
      if (this.#failure !== undefined) throw this.#failure;
      const bytes = this.#bytes;
      yield bytes;
      if (bytes === this.#length) return;
      await unlessAborted(change, signal);
    }
  }
}
