import type { DockerEngine, LoadBody } from '../docker/docker-engine.ts';
import { LoaderError } from '../errors.ts';
import { abortReason } from '../async/abort.ts';

export interface EngineFeedOptions {
  /** How long the engine may neither take a byte nor say one, in ms. */
  readonly stallTimeoutMs: number;
  /** Bytes of a layer's file that the engine has registered so far. */
  readonly onLayerProgress: (layerId: string, current: number) => void;
  /** Breaks the load off while it is sent. One that was sent whole can't be taken back: its reply is awaited. */
  readonly signal: AbortSignal;
}

/** What the body's maker tells its feed while the body is taken. */
export interface EngineFeedControl {
  /** Aborts when the load has failed, whoever failed: nobody waits for it any more. */
  readonly signal: AbortSignal;
  /** Waits for what is not the engine's business; that time is not counted against it. `wait` heeds `signal` itself. */
  readonly pause: <T>(wait: Promise<T>) => Promise<T>;
  /** To be called before the end is given away. From then on the load can't be taken back, and its reply is awaited. */
  readonly commit: () => void;
}

/**
 * Feeds a tar of images to the engine under a watchdog, since an engine may stop reading for ever: one that is loaded
 * again after an interrupted load has been seen to (moby issue 51623).
 *
 * @throws LoaderError of DockerEngine.load, `engine_stalled`; or what the body threw, or the reason of the signal
 */
export async function feedEngine(
  engine: DockerEngine,
  createBody: (control: EngineFeedControl) => LoadBody,
  { stallTimeoutMs, onLayerProgress, signal }: EngineFeedOptions,
): Promise<void> {
  signal.throwIfAborted();
  const abort = new AbortController();
  let isSent = false;
  const onAbort = () => {
    if (!isSent) abort.abort(abortReason(signal));
  };
  signal.addEventListener('abort', onAbort, { once: true });
  const watchdog = new Watchdog(stallTimeoutMs, () => {
    abort.abort(
      new LoaderError(
        'engine_stalled',
        `The Docker engine ${isSent ? 'said' : 'took'} nothing for ${stallTimeoutMs} ms: it hangs, as it may after an interrupted load. Restart it and unlock again.`,
      ),
    );
  });
  const control: EngineFeedControl = {
    signal: abort.signal,
    pause: async (wait) => {
      watchdog.sleep();
      const value = await wait;
      // Its load may have failed meanwhile; then nobody would stop it any more.
      if (!abort.signal.aborted) watchdog.wake();
      return value;
    },
    commit: () => {
      isSent = true;
    },
  };
  const body = createBody(control);
  const watchedChunks = async function* () {
    for await (const chunk of body.chunks) {
      watchdog.pat();
      yield chunk;
    }
    isSent = true;
    watchdog.pat();
  };
  try {
    const listener = {
      onLayerProgress: (layerId: string, current: number) => {
        watchdog.pat();
        onLayerProgress(layerId, current);
      },
    };
    await engine.load({ length: body.length, chunks: watchedChunks() }, listener, abort.signal);
  } finally {
    watchdog.sleep();
    signal.removeEventListener('abort', onAbort);
    // The body may still wait for something; nobody reads it now.
    abort.abort(new Error('the load is over'));
  }
}

/** Barks when it was not patted for a time, unless it sleeps. */
class Watchdog {
  readonly #timeoutMs: number;
  readonly #onStall: () => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(timeoutMs: number, onStall: () => void) {
    this.#timeoutMs = timeoutMs;
    this.#onStall = onStall;
    this.wake();
  }

  wake(): void {
    this.#timer ??= setTimeout(this.#onStall, this.#timeoutMs);
  }

  /** Gives the engine its whole time again. */
  pat(): void {
    this.#timer?.refresh();
  }

  sleep(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
