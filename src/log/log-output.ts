import { setTimeout as sleep } from 'node:timers/promises';
import { LostLines } from './lost-lines.ts';

/** What an output writes to. */
export interface LogTarget {
  /** What messages call it. */
  readonly name: string;
  /**
   * Writes bytes from the start of `bytes`, and returns how many. It must not wait in the thread of the event loop.
   * @throws Error of the system, at once or later; EAGAIN when it can take nothing at present
   */
  write(bytes: Buffer): number | Promise<number>;
}

/** What waits for a target holds at most so many bytes. */
const MAX_WAITING_BYTES = 1_048_576;
/** So many bytes, or a line more, are written at once. */
const BATCH_BYTES = 65_536;
/** The pauses of a target that is busy. They double. */
const MIN_PAUSE_MS = 1;
const MAX_PAUSE_MS = 50;
/** How long a target is left alone after it failed. */
const FAULT_PAUSE_MS = 1_000;
const NOTHING = Buffer.alloc(0);

/**
 * Writes the lines of the log to one target. The target can be slow, full or broken, and neither the event loop nor the
 * memory pays for it:
 *
 * - A line is written before `write` returns, if the target can take it then. Otherwise it waits.
 * - Lines that wait have a bound. What comes when it is reached is lost, and so is all that comes before everything that
 *   waits has been written. The log then has one gap, not many.
 * - When the target fails, everything that waits is lost. It is tried again each second.
 * - What is lost is counted. The next line that can be written tells the count.
 */
export class LogOutput {
  readonly #target: LogTarget;
  readonly #onLoss: (reason: string) => void;
  readonly #lost = new LostLines();
  /** Whole lines, the oldest first. */
  #waiting: string[] = [];
  #waitingBytes = 0;
  /** What is being written, without what is written already. */
  #batch: Buffer = NOTHING;
  /** Whether the batch is the line that tells what was lost. */
  #isTelling = false;
  #isWithinLine = false;
  #isDraining = false;
  #drained: Promise<void> = Promise.resolve();
  #isWriting = false;

  /** `onLoss` is called when lines begin to be lost. */
  constructor(target: LogTarget, onLoss: (reason: string) => void) {
    this.#target = target;
    this.#onLoss = onLoss;
  }

  get name(): string {
    return this.#target.name;
  }

  /** Lines that the target could not take since the start. */
  get lostLines(): number {
    return this.#lost.total;
  }

  /** Whether the target holds a thread of the process: an exit would wait for it. */
  get isWriting(): boolean {
    return this.#isWriting;
  }

  /** Takes one whole line. It never throws. */
  write(line: string): void {
    const bytes = Buffer.byteLength(line);
    if (this.#lost.count > 0 || this.#waitingBytes + bytes > MAX_WAITING_BYTES) {
      this.#lose(1, 'it takes lines more slowly than they come');
    } else {
      this.#waiting.push(line);
      this.#waitingBytes += bytes;
    }
    if (!this.#isDraining) this.#drained = this.#drain();
  }

  /** Resolves when all lines are written, or after `timeoutMs`. */
  async flush(timeoutMs: number): Promise<void> {
    if (this.#isDraining) await Promise.race([this.#drained, sleep(timeoutMs)]);
  }

  /** Up to the first pause it runs within `write`. */
  async #drain(): Promise<void> {
    this.#isDraining = true;
    let pauseMs = MIN_PAUSE_MS;
    while (this.#fillBatch()) {
      try {
        const result = this.#target.write(this.#batch);
        this.#isWriting = typeof result !== 'number';
        this.#advance(typeof result === 'number' ? result : await result);
        pauseMs = MIN_PAUSE_MS;
      } catch (error) {
        this.#isWriting = false;
        const code = codeOf(error);
        if (code !== 'EAGAIN') this.#loseAll(code);
        // No timer keeps the process alive: a log that can't be written is no reason to stay.
        await sleep(code === 'EAGAIN' ? pauseMs : FAULT_PAUSE_MS, undefined, { ref: false });
        pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS);
      }
      this.#isWriting = false;
    }
    this.#isDraining = false;
  }

  /** Returns false when there is nothing to write. */
  #fillBatch(): boolean {
    if (this.#batch.length > 0) return true;
    if (this.#waiting.length > 0) {
      this.#batch = Buffer.from(this.#takeWaiting());
    } else if (this.#lost.count > 0) {
      // After a fault, the last line may have been written in part.
      this.#batch = Buffer.from(`${this.#isWithinLine ? '\n' : ''}${this.#lost.tell()}`);
      this.#isTelling = true;
    }
    return this.#batch.length > 0;
  }

  #takeWaiting(): string {
    let count = 0;
    let length = 0;
    for (; count < this.#waiting.length && length < BATCH_BYTES; count++) length += this.#waiting[count]?.length ?? 0;
    const text = this.#waiting.splice(0, count).join('');
    this.#waitingBytes -= Buffer.byteLength(text);
    return text;
  }

  #advance(written: number): void {
    if (written === 0) return;
    this.#isWithinLine = this.#batch[written - 1] !== 0x0a;
    this.#batch = this.#batch.subarray(written);
    if (this.#batch.length > 0) return;
    this.#batch = NOTHING;
    if (this.#isTelling) this.#lost.forgetTold();
    this.#isTelling = false;
  }

  /** The target failed with `code`. */
  #loseAll(code: string): void {
    // The line that tells of lost lines is none of them.
    const inBatch = this.#isTelling ? 0 : this.#batch.filter((byte) => byte === 0x0a).length;
    const count = inBatch + this.#waiting.length;
    this.#batch = NOTHING;
    this.#isTelling = false;
    this.#waiting = [];
    this.#waitingBytes = 0;
    if (count > 0) this.#lose(count, code);
  }

  #lose(count: number, reason: string): void {
    const isFirst = this.#lost.count === 0;
    this.#lost.add(count);
    if (isFirst) this.#onLoss(reason);
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : String(error);
}
