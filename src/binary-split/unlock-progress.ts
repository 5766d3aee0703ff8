import { unfinishedPercent } from '../async/unfinished-percent.ts';

/** How far an unlock is. The worker thread makes it, and it reaches GET /unlock/status, its events and the task as it is. */
export interface UnlockProgress {
  /** Bytes of layers that the engine has taken, and that it is to take in all: only of layers that it lacks. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Images of the archive, those included that were there already. */
  readonly imagesDone: number;
  readonly imagesTotal: number;
  /** Tags, or IDs where there are none, of what is being sent or registered. */
  readonly currentImages: readonly string[];
  /** 0 to 100. It never goes back, and is 100 only when every image was found in the engine. */
  readonly percent: number;
  /** Of the last seconds; 0 while the engine registers what it has taken. */
  readonly bytesPerSecond: number;
  /** An estimate; null while nothing can be said. */
  readonly secondsLeft: number | null;
}

/** What is counted while images are loaded. */
export type LoadCounts = Pick<
  UnlockProgress,
  'bytesDone' | 'bytesTotal' | 'currentImages' | 'imagesDone' | 'imagesTotal'
>;

interface Sample {
  readonly timeMs: number;
  readonly bytes: number;
  readonly fraction: number;
}

/** Rates are those of this many ms. */
const WINDOW_MS = 5_000;

/** Adds percentage, rate and estimate to the counts of one unlock, each time it is asked. */
export class ProgressMeter {
  readonly #now: () => number;
  readonly #samples: Sample[] = [];
  #percent = 0;

  /** @param now a clock, in ms, that never goes back */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** @param fraction 0 to 1: how much of the work is done */
  measure(counts: LoadCounts, fraction: number): UnlockProgress {
    const timeMs = this.#now();
    const { bytesDone } = counts;
    this.#samples.push({ timeMs, bytes: bytesDone, fraction });
    while (this.#samples.length > 2 && timeMs - (this.#samples[1]?.timeMs ?? 0) >= WINDOW_MS) this.#samples.shift();
    const first = this.#samples[0] ?? { timeMs, bytes: bytesDone, fraction };
    const seconds = (timeMs - first.timeMs) / 1000;
    const fractionPerSecond = seconds > 0 ? (fraction - first.fraction) / seconds : 0;
    this.#percent = unfinishedPercent(this.#percent, fraction * 100);
    return {
      ...counts,
      percent: this.#percent,
      bytesPerSecond: seconds > 0 ? Math.round((bytesDone - first.bytes) / seconds) : 0,
      secondsLeft: fractionPerSecond > 0 ? Math.ceil((1 - fraction) / fractionPerSecond) : null,
    };
  }
}

/** The progress of an unlock when every image was found in the engine. */
export function completeProgress(last: UnlockProgress): UnlockProgress {
  return {
    ...last,
    imagesDone: last.imagesTotal,
    currentImages: [],
    percent: 100,
    bytesPerSecond: 0,
    secondsLeft: 0,
  };
}

/** The progress of an unlock that has failed: nothing moves any more. */
export function haltProgress(last: UnlockProgress): UnlockProgress {
  return { ...last, bytesPerSecond: 0, secondsLeft: null };
}
