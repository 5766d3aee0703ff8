import { onAbort } from '../async/abort.ts';
import { StallTimer } from '../async/stall-timer.ts';
import type { DockerEngine, LayerProgress, LoadBody } from '../docker/docker-engine.ts';
import { LoaderError } from '../errors.ts';

export interface EngineFeedOptions {
  readonly engine: Pick<DockerEngine, 'load'>;
  /** How long the engine may go without taking or sending a byte, in ms. */
  readonly stallTimeoutMs: number;
  /** Breaks off a load that is not sent completely. Any other can't be taken back, so the feed waits for its reply. */
  readonly signal: AbortSignal;
}

/**
 * Feeds one tar of images to the engine under a watchdog, since an engine may stop reading for ever. This has been seen
 * when an interrupted load was repeated (moby issue 51623).
 *
 * The body uses `signal`, `pause` and `commit` while it is taken. After the disposal, `signal` is aborted.
 */
export class EngineFeed implements Disposable {
  readonly #engine: Pick<DockerEngine, 'load'>;
  readonly #stallTimeoutMs: number;
  readonly #abort = new AbortController();
  readonly #timer: StallTimer;
  readonly #cancel: Disposable;
  #isSent = false;

  constructor({ engine, stallTimeoutMs, signal }: EngineFeedOptions) {
    this.#engine = engine;
    this.#stallTimeoutMs = stallTimeoutMs;
    this.#timer = new StallTimer(stallTimeoutMs, () => this.#abort.abort(this.#stalled()));
    this.#cancel = onAbort(signal, (reason) => {
      if (!this.#isSent) this.#abort.abort(reason);
    });
  }

  /** Aborts when the load is over, however it ended. Nothing reads its body then. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /**
   * Sends the load and waits for the engine's reply. It yields how far the engine is with the layers.
   *
   * @throws LoaderError of DockerEngine.load, `engine_stalled`; what the body threw, or the reason of the signal
   */
  async *send({ length, chunks }: LoadBody): AsyncGenerator<LayerProgress, void, undefined> {
    this.signal.throwIfAborted();
    for await (const progress of this.#engine.load({ length, chunks: this.#watch(chunks) }, this.signal)) {
      this.#timer.pat();
      yield progress;
    }
  }

  /** Stops the engine's clock until the disposal, while the body waits for something else. */
  pause(): Disposable {
    this.#timer.pause();
    return {
      [Symbol.dispose]: () => {
        // If the load has failed meanwhile, nothing would stop the timer any more.
        if (!this.signal.aborted) this.#timer.resume();
      },
    };
  }

  /**
   * The body calls it before it yields its end. After that, the load can't be taken back.
   *
   * @throws the reason of `signal`
   */
  commit(): void {
    this.signal.throwIfAborted();
    this.#isSent = true;
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
    this.#cancel[Symbol.dispose]();
    this.#abort.abort(new Error('the load is over'));
  }

  async *#watch(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
    for await (const chunk of chunks) {
      this.#timer.pat();
      yield chunk;
    }
    this.#isSent = true;
    this.#timer.pat();
  }

  #stalled(): LoaderError {
    return new LoaderError(
      'engine_stalled',
      `The Docker engine ${this.#isSent ? 'said' : 'took'} nothing for ${this.#stallTimeoutMs} ms: it hangs, as it may after an interrupted load. Restart it and unlock again.`,
    );
  }
}
