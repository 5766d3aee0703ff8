import { sentLength, type ImageLoad } from './image-load-plan.ts';

/** How far the loading of an archive is. */
export interface UnlockSnapshot {
  /** Of layers, that the engine has taken, and that it is to take in all. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly imagesDone: number;
  readonly imagesTotal: number;
  /** Tags, or IDs where there are none, of what is being sent or registered. */
  readonly currentImages: readonly string[];
  /** 0 to 1. What the engine takes is half of the work; it registers it afterwards. */
  readonly fraction: number;
}

interface LoadState {
  sent: number;
  /** Bytes of each layer, by the short ID that the engine tells. */
  readonly registered: Map<string, number>;
  total: number;
  isDone: boolean;
}

/** Adds up the progress of loads that run side by side. */
export class ImageLoadProgress {
  readonly #imagesTotal: number;
  readonly #states = new Map<ImageLoad, LoadState>();
  readonly #current = new Set<ImageLoad>();
  #imagesDone: number;

  /** @param imagesDone of the images of the archive, those that are there already */
  constructor(loads: readonly ImageLoad[], imagesTotal: number, imagesDone: number) {
    this.#imagesTotal = imagesTotal;
    this.#imagesDone = imagesDone;
    for (const load of loads) {
      this.#states.set(load, { sent: 0, registered: new Map(), total: sentLength(load), isDone: false });
    }
  }

  begin(load: ImageLoad): void {
    this.#current.add(load);
  }

  /** The load begins once more, and sends `length` bytes this time. */
  repeat(load: ImageLoad, length: number): void {
    const state = this.#states.get(load);
    if (state !== undefined) state.total = state.sent + length;
  }

  sent(load: ImageLoad, length: number): void {
    const state = this.#states.get(load);
    if (state !== undefined) state.sent += length;
  }

  registered(load: ImageLoad, layerId: string, current: number): void {
    this.#states.get(load)?.registered.set(layerId, current);
  }

  end(load: ImageLoad): void {
    this.#current.delete(load);
    const state = this.#states.get(load);
    if (state !== undefined) state.isDone = true;
    if (!load.isShared) this.#imagesDone++;
  }

  snapshot(): UnlockSnapshot {
    let bytesDone = 0;
    let bytesTotal = 0;
    let registered = 0;
    for (const { sent, total, isDone, registered: layers } of this.#states.values()) {
      bytesDone += sent;
      bytesTotal += total;
      const told = layers.values().reduce((sum, current) => sum + current, 0);
      registered += isDone ? total : Math.min(told, total);
    }
    return {
      bytesDone,
      bytesTotal,
      imagesDone: this.#imagesDone,
      imagesTotal: this.#imagesTotal,
      currentImages: [...this.#current].map(nameOf),
      fraction: bytesTotal === 0 ? 1 : (bytesDone + registered) / (2 * bytesTotal),
    };
  }
}

function nameOf({ isShared, tags, id }: ImageLoad): string {
  return isShared ? 'shared layers' : (tags[0] ?? id);
}
