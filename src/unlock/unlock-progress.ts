import type { UnlockSnapshot } from '../binary-split/image-load-progress.ts';

/** Progress as GET /unlock/status shows it. */
export interface UnlockProgress {
  /** Of layers, that the engine has taken, and that it is to take in all: only of those that it lacks. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Of the archive, those that were there already included. */
  readonly imagesDone: number;
  readonly imagesTotal: number;
  readonly currentImages: readonly string[];
  /** 0 to 100; it never goes back, and is 100 only when every image was found in the engine. */
  readonly percent: number;
  /** Of the last seconds; 0 while the engine registers what it has taken. */
  readonly bytesPerSecond: number;
  /** Estimated; null before anything can be said. */
  readonly secondsLeft: number | null;
}

interface Sample {
  readonly timeMs: number;
  readonly bytes: number;
  readonly fraction: number;
}

/** Rates are those of this many ms. */
const WINDOW_MS = 5_000;
const MAX_UNFINISHED_PERCENT = 99;

/** Makes rates, estimates and a percentage that never goes back of what one run tells from time to time. */
export class ProgressMeter {
  readonly #now: () => number;
  readonly #samples: Sample[] = [];
  #last: UnlockSnapshot | undefined;
  #percent = 0;

  /** @param now a clock, in ms, that never goes back */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  take(snapshot: UnlockSnapshot): void {
    const timeMs = this.#now();
    this.#last = snapshot;
    this.#samples.push({ timeMs, bytes: snapshot.bytesDone, fraction: snapshot.fraction });
    while (this.#samples.length > 2 && timeMs - (this.#samples[1]?.timeMs ?? 0) >= WINDOW_MS) this.#samples.shift();
    this.#percent = Math.max(this.#percent, Math.min(MAX_UNFINISHED_PERCENT, Math.floor(snapshot.fraction * 100)));
  }

  /** Null before anything was told. `isReady`: every image was found in the engine. */
  read(isReady: boolean): UnlockProgress | null {
    const last = this.#last;
    const [first] = this.#samples;
    if (last === undefined || first === undefined) return null;
    const { bytesDone, bytesTotal, imagesTotal, fraction } = last;
    const seconds = (this.#now() - first.timeMs) / 1000;
    const fractionPerSecond = seconds > 0 ? (fraction - first.fraction) / seconds : 0;
    return {
      bytesDone,
      bytesTotal,
      imagesDone: isReady ? imagesTotal : last.imagesDone,
      imagesTotal,
      currentImages: isReady ? [] : last.currentImages,
      percent: isReady ? 100 : this.#percent,
      bytesPerSecond: isReady || seconds <= 0 ? 0 : Math.round((bytesDone - first.bytes) / seconds),
      secondsLeft: isReady ? 0 : fractionPerSecond > 0 ? Math.ceil((1 - fraction) / fractionPerSecond) : null,
    };
  }
}
