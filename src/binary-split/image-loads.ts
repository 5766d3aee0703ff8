import { readLayer } from '../archive/layer-verifier.ts';
import { onAbort, unlessAborted } from '../async/abort.ts';
import { Semaphore, type Permit } from '../async/semaphore.ts';
import type { DockerEngine, EngineTraits } from '../docker/docker-engine.ts';
import { hasErrorCode, LoaderError, toError } from '../errors.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import type { EnvelopeReader } from '../security/envelope-reader.ts';
import { EngineFeed } from './engine-feed.ts';
import { sentLength, withEveryLayer, type ImageLoad, type ImageLoadPlan } from './image-load-plan.ts';
import { soughtImage } from './sought-image.ts';
import type { ImageLoadProgress } from './unlock-progress.ts';
import { ImageTar } from './image-tar.ts';

export interface ImageLoadsOptions {
  readonly archive: EnvelopeReader;
  readonly engine: Pick<DockerEngine, 'findImage' | 'load'>;
  readonly traits: EngineTraits;
  /** Loads that the engine takes or registers at the same time. */
  readonly parallelism: number;
  readonly stallTimeoutMs: number;
  readonly progress: ImageLoadProgress;
  /** Stops the loads that are not sent completely yet. */
  readonly signal: AbortSignal;
}

/** The number of loads that may wait, sent but for their end, for one that they stand on: a multiple of the parallelism. */
const MAX_WAITING_LOADS = 4;
/** undici writes a chunk of at least this many bytes to the socket before it asks for the next one. */
const MIN_RELEASED_LENGTH = 128 * 1024;

/**
 * Runs planned loads side by side.
 *
 * The engine stages a tar before it registers its layers. So a load that stands on another one is sent meanwhile, all
 * but its end. It takes no slot while it waits.
 */
export class ImageLoads {
  readonly #options: ImageLoadsOptions;
  readonly #slots: Semaphore;
  readonly #openLoads: Semaphore;
  /** Only the load that holds it sends layers. Several at a time would delay the one that others wait for. */
  readonly #lane = new Semaphore(1);
  readonly #outcomes = new Map<ImageLoad, Promise<void>>();
  /** Aborts at the first failure. No load begins after that, and those under way come to their end. */
  readonly #stop = new AbortController();

  constructor(options: ImageLoadsOptions) {
    this.#options = options;
    this.#slots = new Semaphore(options.parallelism);
    this.#openLoads = new Semaphore(options.parallelism * (1 + MAX_WAITING_LOADS));
  }

  /** Runs `loads`, which are in the order of the plan. Returns, or throws the first failure, when all have ended. */
  async run(loads: ImageLoadPlan): Promise<void> {
    using _abort = onAbort(this.#options.signal, (reason) => this.#stop.abort(reason));
    for (const load of loads) {
      const outcome = this.#runLoad(load).catch((error: unknown) => {
        this.#stop.abort(error);
        throw error;
      });
      this.#outcomes.set(load, outcome);
    }
    await Promise.allSettled(this.#outcomes.values());
    // The reason of the stop is the first failure, whatever other failures it led to.
    if (this.#stop.signal.aborted) throw toError(this.#stop.signal.reason);
  }

  async #runLoad(load: ImageLoad): Promise<void> {
    using _open = await this.#openLoads.acquire(this.#stop.signal);
    try {
      await this.#send(load, load);
    } catch (error) {
      const whole = withEveryLayer(load);
      const isPartial = load.sentLayers.length < whole.sentLayers.length;
      const isRefused = hasErrorCode(error, 'engine_error', 'engine_image_missing');
      // After a stop, the error may be that of the load that this one waited for.
      if (!isPartial || !isRefused || this.#stop.signal.aborted) throw error;
      // The engine lacks a layer that was left out: it was removed, or the engine wants every layer.
      this.#options.progress.repeat(load, sentLength(whole));
      await this.#send(load, whole);
    }
    this.#options.progress.end(load);
  }

  /** Sends `sent`, which is `load` or the same with more layers, and checks that the engine has the image then. */
  async #send(load: ImageLoad, sent: ImageLoad): Promise<void> {
    const { engine, progress, signal, traits } = this.#options;
    using turn = await Turn.take(this.#slots, this.#lane, this.#stop.signal);
    progress.begin(load);
    using feed = new EngineFeed(this.#options);
    const tar = new ImageTar(sent);
    const body = { length: tar.length, chunks: this.#body(load, sent, tar, feed, turn) };
    for await (const layer of feed.send(body)) progress.registered(load, layer);
    if ((await engine.findImage(soughtImage(sent), traits, signal)) !== undefined) return;
    throw new LoaderError(
      'engine_image_missing',
      `The Docker engine reported no failure, but does not have the image ${sent.tags[0] ?? sent.id}; see its log.`,
    );
  }

  /**
   * The body of one load. Every layer is verified, and the load that this one stands on has ended, before the tail
   * makes an image of the layers.
   */
  async *#body(
    load: ImageLoad,
    { after }: ImageLoad,
    tar: ImageTar,
    feed: EngineFeed,
    turn: Turn,
  ): AsyncGenerator<Buffer, void, undefined> {
    for (const layer of tar.layers) {
      yield tar.header(layer);
      for await (const chunk of readLayer(this.#options.archive, layer)) {
        feed.signal.throwIfAborted();
        this.#options.progress.sent(load, chunk.length);
        yield chunk;
        if (chunk.length >= MIN_RELEASED_LENGTH) releaseChunk(chunk);
      }
      yield tar.padding(layer);
    }
    turn.leaveLane();
    if (after !== undefined) {
      using _pause = feed.pause();
      turn.leaveSlot();
      await unlessAborted(this.#outcomeOf(after), feed.signal);
      await turn.retakeSlot(feed.signal);
    }
    feed.commit();
    yield tar.tail;
  }

  async #outcomeOf(load: ImageLoad): Promise<void> {
    await this.#outcomes.get(load);
  }
}

/** What one load holds: the lane while it sends layers, and a slot of the engine. Its disposal gives both back. */
class Turn implements Disposable {
  readonly #slots: Semaphore;
  readonly #slot: Permit;
  readonly #lane: Permit;
  readonly #held: DisposableStack;

  private constructor(slots: Semaphore, slot: Permit, lane: Permit, held: DisposableStack) {
    this.#slots = slots;
    this.#slot = slot;
    this.#lane = lane;
    this.#held = held;
  }

  /** @throws the reason of `signal` */
  static async take(slots: Semaphore, lanes: Semaphore, signal: AbortSignal): Promise<Turn> {
    using held = new DisposableStack();
    const slot = held.use(await slots.acquire(signal));
    const lane = held.use(await lanes.acquire(signal));
    return new Turn(slots, slot, lane, held.move());
  }

  leaveLane(): void {
    this.#lane[Symbol.dispose]();
  }

  leaveSlot(): void {
    this.#slot[Symbol.dispose]();
  }

  /** @throws the reason of `signal` */
  async retakeSlot(signal: AbortSignal): Promise<void> {
    const slot = await this.#slots.acquire(signal);
    // If the load has failed meanwhile, nothing would give this slot back any more.
    if (this.#held.disposed) slot[Symbol.dispose]();
    else this.#held.use(slot);
  }

  [Symbol.dispose](): void {
    this.#held.dispose();
  }
}
