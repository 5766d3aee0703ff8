import { on } from 'node:events';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { archiveError } from '../archive/archive-error.ts';
import { onAbort } from '../async/abort.ts';
import type { DockerHost } from '../docker/docker-host.ts';
import { asLoaderError, LoaderError, systemErrorCode, type ErrorCode } from '../errors.ts';
import type { UnlockedArchive } from './unlock-archive.ts';
import type { UnlockProgress } from './unlock-progress.ts';

/** What a worker thread needs when it starts. */
export interface UnlockJob {
  /** Of the archive. */
  readonly path: string;
  readonly dockerHost: DockerHost;
  readonly engineTimeoutMs: number;
  readonly parallelism: number;
  readonly stallTimeoutMs: number;
}

export type ThreadOrder =
  | { readonly kind: 'begin'; readonly aesKey: Uint8Array }
  | { readonly kind: 'cancel'; readonly code: ErrorCode; readonly message: string };

export type ThreadMessage =
  | { readonly kind: 'progress'; readonly progress: UnlockProgress }
  | { readonly kind: 'loaded'; readonly loaded: UnlockedArchive }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string; readonly reason: string };

/** This file and the thread's are .ts in src and .js where they were built. */
const THREAD = new URL(`./unlock-thread${path.extname(import.meta.url)}`, import.meta.url);
/** No archive within the limits needs more, and the process survives one that does. */
const MAX_HEAP_MIB = 256;

/**
 * The binary-split unlock worker: a thread that reads, decrypts, checks and sends the archive, so that the event loop
 * stays free. The thread starts when this object is made, so make it early. Its disposal terminates the thread.
 */
export class UnlockWorker implements AsyncDisposable {
  readonly #worker: Worker;
  #hasExited = false;
  #failure: LoaderError | undefined;

  constructor(job: UnlockJob) {
    this.#worker = new Worker(THREAD, {
      workerData: job,
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MIB },
    });
    // These listeners come first, since the thread may die before it gets anything to do.
    this.#worker.once('exit', () => (this.#hasExited = true));
    this.#worker.once('error', (error) => (this.#failure = toThreadError(error)));
  }

  /**
   * Loads the archive and returns what it has loaded. It yields its progress once the engine begins to get images.
   * After `signal` aborts, it fails as soon as nothing is being sent any more.
   *
   * @throws LoaderError of unlockArchive, or the reason of the signal
   */
  async *unlock(aesKey: Buffer, signal: AbortSignal): AsyncGenerator<UnlockProgress, UnlockedArchive, undefined> {
    signal.throwIfAborted();
    if (this.#hasExited) throw this.#endedEarly();
    const messages = on(this.#worker, 'message', { close: ['exit'] }) as AsyncIterable<[ThreadMessage]>;
    using _cancel = onAbort(signal, (reason) => {
      const code = reason instanceof LoaderError ? reason.code : 'unlock_cancelled';
      this.#order({ kind: 'cancel', code, message: reason.message });
    });
    this.#order({ kind: 'begin', aesKey });
    try {
      for await (const [message] of messages) {
        if (message.kind === 'loaded') return message.loaded;
        if (message.kind === 'failed') {
          throw new LoaderError(message.code, message.message, { cause: new Error(message.reason) });
        }
        yield message.progress;
      }
    } catch (error) {
      throw this.#failure ?? error;
    }
    throw this.#endedEarly();
  }

  /** Ends the thread at once, whatever it is doing. Connections to the engine break. */
  async terminate(): Promise<void> {
    await this.#worker.terminate();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.terminate();
  }

  #endedEarly(): Error {
    return this.#failure ?? new Error('the worker thread of the unlock ended early');
  }

  #order(order: ThreadOrder): void {
    this.#worker.postMessage(order);
  }
}

function toThreadError(error: unknown): LoaderError {
  if (systemErrorCode(error) === 'ERR_WORKER_OUT_OF_MEMORY') {
    return archiveError('it needs more memory than a valid archive does');
  }
  return asLoaderError(error);
}
