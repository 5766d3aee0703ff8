import type { ArchiveStream } from '../archive/archive-stream.ts';
import { unfinishedPercent } from '../async/unfinished-percent.ts';
import type { LayerProgress } from '../docker/docker-engine.ts';
import { sentLength, type ImageLoadPlan, type ImageLoad } from './image-load-plan.ts';

/** How far an unlock is. The worker thread makes it. GET /unlock/status, its events and the task show it unchanged. */
export interface UnlockProgress {
  /** Bytes of the layers that the engine lacks: those that it has taken, and all of them. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Images of the archive, including those that were there already. */
  readonly imagesDone: number;
  readonly imagesTotal: number;
  /** The images that are being sent or registered: the first tag of each, or the ID where it has none. */
  readonly currentImages: readonly string[];
  /** 0 to 100. It never decreases, and is 100 only when every image was found in the engine. */
  readonly percent: number;
  /** The average of the last seconds; 0 while the engine registers what it has taken. */
  readonly bytesPerSecond: number;
  /** An estimate; null while there is none. */
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

/** Rates are averages over this many ms. */
const WINDOW_MS = 5_000;
/** Layers of one image: no archive has more. Further IDs that an engine reports are not kept. */
const MAX_LAYERS = 512;

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

type StreamedArchive = Pick<ArchiveStream, 'bytesRead' | 'images'>;

interface LoadState {
  sent: number;
  /** Bytes of each layer that the engine has registered, by the short ID that it reports. */
  readonly registered: Map<string, number>;
  total: number;
  isDone: boolean;
}

/** Adds up the progress of the loads of one unlock, which run side by side. */
export class ImageLoadProgress {
  readonly #meter: ProgressMeter;
  readonly #planned = Promise.withResolvers<undefined>();
  readonly #states = new Map<ImageLoad, LoadState>();
  readonly #current = new Set<ImageLoad>();
  #stream: StreamedArchive | undefined;
  #streamTotal = 0;
  #imagesTotal: number | undefined;
  #imagesDone = 0;

  constructor(meter = new ProgressMeter()) {
    this.#meter = meter;
  }

  /** Resolves when it is known what is to be loaded, and loading begins. */
  get planned(): Promise<undefined> {
    return this.#planned.promise;
  }

  /** @param images of the archive: all of them, and those that are there already */
  plan(loads: ImageLoadPlan, images: { readonly total: number; readonly present: number }): void {
    for (const load of loads) {
      this.#states.set(load, { sent: 0, registered: new Map(), total: sentLength(load), isDone: false });
    }
    this.#imagesTotal = images.total;
    this.#imagesDone = images.present;
    this.#planned.resolve(undefined);
  }

  /**
   * Takes the place of `plan` for a compressed archive, which is loaded in one piece of `bytesTotal` compressed bytes.
   */
  planStream(archive: StreamedArchive, bytesTotal: number): void {
    this.#stream = archive;
    this.#streamTotal = bytesTotal;
    this.#planned.resolve(undefined);
  }

  begin(load: ImageLoad): void {
    this.#current.add(load);
  }

  /** Call it when the load begins again. It sends `length` bytes this time. */
  repeat(load: ImageLoad, length: number): void {
    const state = this.#states.get(load);
    if (state !== undefined) state.total = state.sent + length;
  }

  sent(load: ImageLoad, length: number): void {
    const state = this.#states.get(load);
    if (state !== undefined) state.sent += length;
  }

  registered(load: ImageLoad, { layerId, current }: LayerProgress): void {
    const layers = this.#states.get(load)?.registered;
    if (layers === undefined || (layers.size >= MAX_LAYERS && !layers.has(layerId))) return;
    layers.set(layerId, current);
  }

  end(load: ImageLoad): void {
    this.#current.delete(load);
    const state = this.#states.get(load);
    if (state !== undefined) state.isDone = true;
    if (!load.isShared) this.#imagesDone++;
  }

  /** Undefined until it is known what is to be loaded. */
  read(): UnlockProgress | undefined {
    if (this.#stream !== undefined) return this.#readStream(this.#stream);
    if (this.#imagesTotal === undefined) return undefined;
    let bytesDone = 0;
    let bytesTotal = 0;
    let registered = 0;
    for (const { sent, total, isDone, registered: layers } of this.#states.values()) {
      bytesDone += sent;
      bytesTotal += total;
      const told = layers.values().reduce((sum, current) => sum + current, 0);
      registered += isDone ? total : Math.min(told, total);
    }
    const counts = {
      bytesDone,
      bytesTotal,
      imagesDone: this.#imagesDone,
      imagesTotal: this.#imagesTotal,
      currentImages: [...this.#current].map(nameOf),
    };
    // Taking the bytes is half of the engine's work: it registers them afterwards.
    return this.#meter.measure(counts, bytesTotal === 0 ? 1 : (bytesDone + registered) / (2 * bytesTotal));
  }

  #readStream({ bytesRead, images }: StreamedArchive): UnlockProgress {
    const counts = {
      bytesDone: bytesRead,
      bytesTotal: this.#streamTotal,
      imagesDone: 0,
      imagesTotal: images.length,
      currentImages: ['all images of the compressed archive'],
    };
    return this.#meter.measure(counts, bytesRead / this.#streamTotal / 2);
  }
}

function nameOf({ isShared, tags, id }: ImageLoad): string {
  return isShared ? 'shared layers' : (tags[0] ?? id);
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
