import type { ArchiveStream } from '../archive/archive-stream.ts';
import { sentLength, type ImageLoadPlan, type ImageLoad } from './image-load-plan.ts';
import { ProgressMeter, type UnlockProgress } from './unlock-progress.ts';

type StreamedArchive = Pick<ArchiveStream, 'bytesRead' | 'images'>;

interface LoadState {
  sent: number;
  /** Bytes of each layer, by the short ID that the engine tells. */
  readonly registered: Map<string, number>;
  total: number;
  isDone: boolean;
}

/** Layers of one image: no archive has more. Further IDs that an engine tells are not kept. */
const MAX_LAYERS = 512;

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

  /** @param images of the archive: in all, and those that are there already */
  plan(loads: ImageLoadPlan, images: { readonly total: number; readonly present: number }): void {
    for (const load of loads) {
      this.#states.set(load, { sent: 0, registered: new Map(), total: sentLength(load), isDone: false });
    }
    this.#imagesTotal = images.total;
    this.#imagesDone = images.present;
    this.#planned.resolve(undefined);
  }

  /** In place of `plan`: all of a compressed archive is loaded in one piece. `bytesTotal` are those of its tar, compressed. */
  planStream(archive: StreamedArchive, bytesTotal: number): void {
    this.#stream = archive;
    this.#streamTotal = bytesTotal;
    this.#planned.resolve(undefined);
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
    // What the engine takes is half of the work: it registers it afterwards.
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
