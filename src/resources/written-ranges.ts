import { unlessAborted } from '../async/abort.ts';
import { Changes } from '../async/changes.ts';
import type { PassingError } from '../errors.ts';

/** What is known of the bytes that are to come. */
export interface WriteProgress {
  /** Bytes that are written, of all ranges together. */
  readonly bytes: number;
  /** What the writers wait for; undefined while bytes come. */
  readonly waitsFor: PassingError | undefined;
}

/** Of who waits for bytes. */
export interface ReaderLimits {
  readonly signal: AbortSignal;
  /** How long an outage may last, in ms. */
  readonly patienceMs: number;
}

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
  #outage: { readonly failure: PassingError; readonly ageMs: number } | undefined;

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
    this.#outage = undefined;
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

  /** Notes that the writers wait for a source that has failed, and for how long, in ms. It ends with the next bytes. */
  wait(failure: PassingError, ageMs: number): void {
    this.#outage = { failure, ageMs };
    this.#changes.announce();
  }

  /**
   * Waits until all bytes before `position` are written.
   *
   * @throws the failure; that of an outage which lasts longer than the patience; the reason of the signal
   */
  async reach(position: number, limits: ReaderLimits): Promise<void> {
    while (this.available < position) {
      const change = this.#changes.next;
      this.#throwFailure(limits);
      await unlessAborted(change, limits.signal);
    }
  }

  /**
   * Yields the progress at once, and after each change, until all bytes are written. A slow consumer misses what was in
   * between, never the last one.
   *
   * @throws as `reach` does
   */
  async *progress(limits: ReaderLimits): AsyncGenerator<WriteProgress, void, undefined> {
    for (;;) {
      const change = this.#changes.next;
      limits.signal.throwIfAborted();
      this.#throwFailure(limits);
      const bytes = this.#bytes;
      yield { bytes, waitsFor: this.#outage?.failure };
      if (bytes === this.#length) return;
      await unlessAborted(change, limits.signal);
    }
  }

  #throwFailure({ patienceMs }: ReaderLimits): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#outage !== undefined && this.#outage.ageMs > patienceMs) throw this.#outage.failure;
  }
}
