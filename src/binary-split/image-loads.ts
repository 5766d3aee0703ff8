import type { DockerEngine, EngineTraits } from '../docker/docker-engine.ts';
import { hasErrorCode, LoaderError, toError } from '../errors.ts';
import type { EnvelopeReader } from '../security/envelope-reader.ts';
import { findImage } from './engine-images.ts';
import { feedEngine, type EngineFeedControl } from './engine-feed.ts';
import { ImageTar } from './image-tar.ts';
import { sentLength, withEveryLayer, type ImageLoadPlan, type ImageLoad } from './image-load-plan.ts';
import type { ImageLoadProgress } from './image-load-progress.ts';
import { Semaphore, type Permit } from '../async/semaphore.ts';

export interface ImageLoadsOptions {
  readonly archive: EnvelopeReader;
  readonly engine: DockerEngine;
  readonly traits: EngineTraits;
  /** Loads that are sent to, or registered by, the engine at once. */
  readonly parallelism: number;
  readonly stallTimeoutMs: number;
  readonly progress: ImageLoadProgress;
  /** Stops the loads that are not sent whole yet. */
  readonly signal: AbortSignal;
}

/** Loads that were sent but for their end, and wait for one that they stand on, as multiples of the parallelism. */
const MAX_WAITING_LOADS = 4;

/**
 * Runs planned loads side by side.
 *
 * The engine stages a tar before it registers its layers. So a load that stands on another one is sent meanwhile, but for
 * its end, and takes no slot while it waits.
 */
export class ImageLoads {
  readonly #options: ImageLoadsOptions;
  readonly #slots: Semaphore;
  readonly #openLoads: Semaphore;
  /** Held while layers are sent, one load at a time: what others wait for would come later beside them. */
  readonly #lane = new Semaphore(1);
  readonly #outcomes = new Map<ImageLoad, Promise<void>>();
  /** Aborts at the first failure: nothing new begins then, and what is under way comes to its end. */
  readonly #stop = new AbortController();

  constructor(options: ImageLoadsOptions) {
    this.#options = options;
    this.#slots = new Semaphore(options.parallelism);
    this.#openLoads = new Semaphore(options.parallelism * (1 + MAX_WAITING_LOADS));
  }

  /** Returns, or throws the first failure, when nothing is under way any more. `loads` are in the order of the plan. */
  async run(loads: ImageLoadPlan): Promise<void> {
    const { signal } = this.#options;
    const onAbort = () => this.#stop.abort(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    for (const load of loads) {
      const outcome = this.#runLoad(load).catch((error: unknown) => {
        this.#stop.abort(error);
        throw error;
      });
      this.#outcomes.set(load, outcome);
    }
    await Promise.allSettled(this.#outcomes.values());
    signal.removeEventListener('abort', onAbort);
    // The reason of the stop is the first failure, whatever it led to elsewhere.
    if (this.#stop.signal.aborted) throw toError(this.#stop.signal.reason);
  }

  async #runLoad(load: ImageLoad): Promise<void> {
    const { progress } = this.#options;
    using _open = await this.#openLoads.acquire(this.#stop.signal);
    const places = { slot: new Place(this.#slots), lane: new Place(this.#lane) };
    try {
      await places.slot.take(this.#stop.signal);
      await places.lane.take(this.#stop.signal);
      progress.begin(load);
      try {
        await this.#feed(load, load, places);
      } catch (error) {
        const isPartial = load.sentLayers.length < withEveryLayer(load).sentLayers.length;
        const isRefused = hasErrorCode(error, 'engine_error', 'engine_image_missing');
        // After a stop, it may be the failure of the load that this one waited for.
        if (!isPartial || !isRefused || this.#stop.signal.aborted) throw error;
        // A layer that was left out is not there after all: somebody removed it, or the engine wants every layer.
        const whole = withEveryLayer(load);
        places.lane.leave();
        places.slot.leave();
        await places.slot.take(this.#stop.signal);
        await places.lane.take(this.#stop.signal);
        progress.repeat(load, sentLength(whole));
        await this.#feed(load, whole, places);
      }
      progress.end(load);
    } finally {
      places.lane.leave();
      places.slot.leave();
    }
  }

  /** Sends `sent`, which is `load` or more of it, and looks whether the image is there then. */
  async #feed(load: ImageLoad, sent: ImageLoad, { slot, lane }: Places): Promise<void> {
    const { archive, engine, progress, stallTimeoutMs, signal, traits } = this.#options;
    const tar = new ImageTar(sent);
    const createBody = (control: EngineFeedControl) => ({
      length: tar.length,
      chunks: tar.chunks({
        archive,
        signal: control.signal,
        onBytes: (length) => progress.sent(load, length),
        beforeEnd: async () => {
          lane.leave();
          if (sent.after !== undefined) await control.pause(this.#waitFor(sent.after, slot, control.signal));
          control.signal.throwIfAborted();
          control.commit();
        },
      }),
    });
    await feedEngine(engine, createBody, {
      stallTimeoutMs,
      signal,
      onLayerProgress: (layerId, current) => progress.registered(load, layerId, current),
    });
    const wanted = { id: sent.id, tags: sent.tags, diffIds: sent.layers.map(({ diffId }) => diffId) };
    if ((await findImage(engine, wanted, traits, signal)) !== undefined) return;
    throw new LoaderError(
      'engine_image_missing',
      `The Docker engine reported no failure, but does not have the image ${sent.tags[0] ?? sent.id}; see its log.`,
    );
  }

  /** Gives the slot to others until the load that is to come first has ended. */
  async #waitFor(first: ImageLoad, slot: Place, signal: AbortSignal): Promise<void> {
    slot.leave();
    await this.#outcomes.get(first);
    await slot.take(signal);
  }
}

interface Places {
  readonly slot: Place;
  readonly lane: Place;
}

/** One place of a semaphore, which is taken or not. */
class Place {
  readonly #semaphore: Semaphore;
  #permit: Permit | undefined;

  constructor(semaphore: Semaphore) {
    this.#semaphore = semaphore;
  }

  async take(signal: AbortSignal): Promise<void> {
    this.#permit = await this.#semaphore.acquire(signal);
  }

  leave(): void {
    this.#permit?.[Symbol.dispose]();
    this.#permit = undefined;
  }
}
