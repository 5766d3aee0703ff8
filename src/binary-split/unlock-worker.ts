import path from 'node:path';
import { Worker } from 'node:worker_threads';
import type { DockerHost } from '../docker/docker-host.ts';
import { asLoaderError, LoaderError, systemErrorCode, type ErrorCode } from '../errors.ts';
import { archiveError } from '../archive/archive-error.ts';
import type { UnlockedArchive } from './unlock-archive.ts';
import type { UnlockSnapshot } from './image-load-progress.ts';
import { abortReason } from '../async/abort.ts';

/** What a worker thread needs from its start on. */
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
  | { readonly kind: 'loading' }
  | { readonly kind: 'progress'; readonly snapshot: UnlockSnapshot }
  | { readonly kind: 'loaded'; readonly loaded: UnlockedArchive }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string; readonly reason: string };

export interface UnlockWorkerListener {
  /** The archive is sound as far as can be told, and the engine begins to get images. */
  readonly onLoading: () => void;
  readonly onProgress: (snapshot: UnlockSnapshot) => void;
}

/** The extension that this very file has: .ts as it stands in src, .js as it is built. */
const THREAD = new URL(`./unlock-thread${path.extname(import.meta.url)}`, import.meta.url);
/** No archive that keeps within its limits needs more; the process lives on when one does. */
const MAX_HEAP_MIB = 256;

/**
 * A thread that reads, decrypts, checks and sends the archive, so that the event loop stays free for everybody else. It
 * starts when it is made: make it early.
 */
export class UnlockWorker {
  readonly #worker: Worker;
  /** Never fails. From the start on, since the thread may die before it is given anything to do. */
  readonly #exited: Promise<void>;
  #failure: LoaderError | undefined;

  constructor(job: UnlockJob) {
    this.#worker = new Worker(THREAD, {
      workerData: job,
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MIB },
    });
    this.#exited = new Promise((resolve) => this.#worker.once('exit', () => resolve()));
    this.#worker.once('error', (error) => {
      this.#failure = toThreadError(error);
    });
  }

  /**
   * Loads the archive. When `signal` aborts, it returns as soon as nothing is sent any more.
   *
   * @throws LoaderError of unlockArchive, or the reason of the signal
   */
  async load(aesKey: Buffer, listener: UnlockWorkerListener, signal: AbortSignal): Promise<UnlockedArchive> {
    signal.throwIfAborted();
    const worker = this.#worker;
    const { promise, resolve, reject } = Promise.withResolvers<UnlockedArchive>();
    worker.on('message', (message: ThreadMessage) => {
      if (message.kind === 'loading') listener.onLoading();
      else if (message.kind === 'progress') listener.onProgress(message.snapshot);
      else if (message.kind === 'loaded') resolve(message.loaded);
      else reject(new LoaderError(message.code, message.message, { cause: new Error(message.reason) }));
    });
    void this.#exited.then(() => reject(this.#failure ?? new Error('the worker thread of the unlock ended early')));
    const onAbort = () => {
      const reason = abortReason(signal);
      const code = reason instanceof LoaderError ? reason.code : 'unlock_cancelled';
      this.#order({ kind: 'cancel', code, message: reason.message });
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      this.#order({ kind: 'begin', aesKey });
      return await promise;
    } finally {
      // It has said its last word, when nothing was under way any more.
      await this.terminate();
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Ends the thread at once, whatever it does. Connections to the engine break. */
  async terminate(): Promise<void> {
    await this.#worker.terminate();
  }

  #order(order: ThreadOrder): void {
    this.#worker.postMessage(order);
  }
}

function toThreadError(error: unknown): LoaderError {
  if (systemErrorCode(error) === 'ERR_WORKER_OUT_OF_MEMORY')
    return archiveError('it needs more memory than any good one');
  return asLoaderError(error);
}
