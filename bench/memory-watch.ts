import { writeFileSync } from 'node:fs';
import { readMemory } from '../lab/proc.ts';

const SAMPLE_EVERY_MS = 20;

/** Bytes over idle. */
export interface MemoryPeak {
  /** The largest that was seen, every 20 ms. */
  readonly sampled: number;
  /** The kernel's own high-water mark, which no short peak escapes. */
  readonly highWater: number;
}

/** Watches the resident memory of a process that is idle when the watch begins. Linux only. */
export class MemoryWatch {
  readonly #pid: number;
  readonly #idle: number;
  readonly #timer: NodeJS.Timeout;
  #peak: number;

  constructor(pid: number) {
    this.#pid = pid;
    // Sets the high-water mark back to the present (proc(5), clear_refs): else it would be that of the start.
    writeFileSync(`/proc/${pid}/clear_refs`, '5');
    this.#idle = readMemory(pid).present;
    this.#peak = this.#idle;
    this.#timer = setInterval(() => {
      try {
        this.#peak = Math.max(this.#peak, readMemory(pid).present);
      } catch {
        // The process has ended. Its client reports that better.
      }
    }, SAMPLE_EVERY_MS);
  }

  /** The peak until now. */
  read(): MemoryPeak {
    return { sampled: this.#peak - this.#idle, highWater: readMemory(this.#pid).peak - this.#idle };
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
