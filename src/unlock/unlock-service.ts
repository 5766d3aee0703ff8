import type { Upstream } from '../upstream/upstream.ts';
import { Changes } from '../async/changes.ts';
import { asLoaderError, LoaderError, type ErrorCode } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { deriveArchiveAesKey } from '../security/key-derivation.ts';
import { happens, abortReason } from '../async/abort.ts';
import type { UnlockedArchive } from '../binary-split/unlock-archive.ts';
import type { UnlockSnapshot } from '../binary-split/image-load-progress.ts';
import {
  archiveExists,
  isSameArchive,
  openArchive,
  readArchiveIdentity,
  type ArchiveIdentity,
} from '../archive/open-archive.ts';
import type { Presence } from './presence.ts';
import { ProgressMeter, type UnlockProgress } from './unlock-progress.ts';
import type { Receipt } from './receipt.ts';
import { UnlockStateMachine, type UnlockClaim, type UnlockState } from './unlock-state-machine.ts';
import type { UnlockWorker } from '../binary-split/unlock-worker.ts';

export interface UnlockServiceOptions {
  readonly upstream: Pick<Upstream, 'login'>;
  readonly presence: Presence;
  readonly receipt: Receipt;
  readonly archivePath: string;
  readonly createWorker: () => UnlockWorker;
  readonly logger: Logger;
}

export interface UnlockStatus {
  readonly state: UnlockState;
  /** For people; of the last run, when it failed. */
  readonly error: string | null;
  readonly code: ErrorCode | null;
  readonly progress: UnlockProgress | null;
}

interface ActiveRun {
  readonly cancel: AbortController;
  /** Ends when every side effect has. It never fails. */
  readonly ended: Promise<void>;
}

/**
 * The unlock of the device's image archive, once per release: log in, fetch the key fragment, load what the engine lacks.
 * It belongs to no request: whoever started it may leave.
 */
export class UnlockService {
  readonly #options: UnlockServiceOptions;
  readonly #changes = new Changes();
  readonly #machine = new UnlockStateMachine(() => this.#changes.announce());
  #starting: { readonly abort: AbortController; readonly state: Promise<UnlockState> } | undefined;
  #active: ActiveRun | undefined;
  #worker: UnlockWorker | undefined;
  #meter = new ProgressMeter();
  /** The archive that was found loaded last. */
  #unlocked: ArchiveIdentity | undefined;
  #isStopped = false;
  #onRun: (email: string) => void = () => undefined;

  constructor(options: UnlockServiceOptions) {
    this.#options = options;
  }

  get status(): UnlockStatus {
    const { state, error } = this.#machine;
    const progress = this.#meter.read(state === 'ready');
    return { state, error: error?.message ?? null, code: error?.code ?? null, progress };
  }

  /** `listener` is told, from now on, whenever a run has begun, and for whom. There is one. */
  onRun(listener: (email: string) => void): void {
    this.#onRun = listener;
  }

  /**
   * Starts a run, unless one is under way or this very archive is unlocked; answers the state then. Callers that come at
   * the same time share the answer.
   *
   * @throws LoaderError `archive_not_found`, `archive_unreadable`, `shutting_down`; `engine_...` where there is no archive
   * and the engine can't be asked for its images
   */
  async start(email: string, password: string): Promise<UnlockState> {
    if (this.#starting === undefined) {
      const abort = new AbortController();
      const state = this.#start(email, password, abort.signal).finally(() => {
        this.#starting = undefined;
      });
      this.#starting = { abort, state };
    }
    return await this.#starting.state;
  }

  /** Ends the run that is under way, if there is one, and answers the state when all its side effects have stopped. */
  async cancel(): Promise<UnlockState> {
    await this.#cancel(new LoaderError('unlock_cancelled', 'The unlock was cancelled.'));
    return this.#machine.state;
  }

  /** The same for the end of the process. When `deadline` aborts, even what can't be taken back is broken off. */
  async stop(deadline: AbortSignal): Promise<void> {
    this.#isStopped = true;
    const terminate = () => void this.#worker?.terminate();
    deadline.addEventListener('abort', terminate, { once: true });
    await this.#cancel(new LoaderError('unlock_cancelled', 'The Loader stopped before all was loaded: unlock again.'));
    deadline.removeEventListener('abort', terminate);
    // Those who watch are not to wait for a run that never begins.
    this.#changes.announce();
  }

  /** Yields the status now and whenever it changes; ends after that of a finished run, and when the Loader stops. */
  async *watch(signal: AbortSignal): AsyncGenerator<UnlockStatus, void, undefined> {
    while (!signal.aborted) {
      const { status } = this;
      const change = this.#changes.next;
      yield status;
      if (status.state === 'ready' || status.state === 'error') return;
      // A run that is under way ends soon, and how it did is to be told.
      if (this.#isStopped && !this.#machine.isRunning) return;
      if (!(await happens(change, signal))) return;
    }
  }

  async #start(email: string, password: string, signal: AbortSignal): Promise<UnlockState> {
    const { archivePath } = this.#options;
    if (this.#isStopped)
      throw new LoaderError('shutting_down', 'The Loader is stopping; ask again when it has started.');
    if (this.#machine.isRunning) return this.#machine.state;
    const exists = await archiveExists(archivePath);
    if (this.#machine.state === 'ready' && !(exists && (await this.#isNewArchive()))) return 'ready';
    signal.throwIfAborted();
    if (exists) {
      this.#begin(email, password);
    } else {
      if (!(await this.#options.presence.isLoaded(signal))) {
        throw new LoaderError('archive_not_found', 'Encrypted archive not found');
      }
      this.#meter = new ProgressMeter();
      this.#machine.becomeReady();
    }
    return this.#machine.state;
  }

  async #isNewArchive(): Promise<boolean> {
    const present = await readArchiveIdentity(this.#options.archivePath);
    return this.#unlocked === undefined || !isSameArchive(present, this.#unlocked);
  }

  #begin(email: string, password: string): void {
    const run = this.#machine.claim();
    if (run === undefined) return;
    this.#meter = new ProgressMeter();
    const cancel = new AbortController();
    const ended = this.#run(run, email, password, cancel.signal).finally(() => {
      this.#active = undefined;
    });
    this.#active = { cancel, ended };
    this.#onRun(email);
  }

  async #run(run: UnlockClaim, email: string, password: string, signal: AbortSignal): Promise<void> {
    const { logger, presence, archivePath } = this.#options;
    const startedAt = performance.now();
    try {
      if (await presence.isLoaded(signal)) {
        this.#unlocked = await readArchiveIdentity(archivePath);
        logger.info('The images of the archive are loaded already');
      } else {
        const loaded = await this.#load(run, email, password, signal);
        this.#unlocked = loaded.identity;
        await this.#writeReceipt(loaded);
        logger.info({ images: loaded.images.length, ms: Math.round(performance.now() - startedAt) }, 'Unlocked');
      }
      run.advance('ready');
    } catch (error) {
      const known = signal.aborted ? abortReason(signal) : error;
      const failure = asLoaderError(known);
      logger.error({ err: failure, code: failure.code }, 'The unlock failed');
      run.fail(failure);
    }
  }

  async #load(run: UnlockClaim, email: string, password: string, signal: AbortSignal): Promise<UnlockedArchive> {
    const { upstream, archivePath, createWorker } = this.#options;
    // Before the login, so that the thread has started when it is needed.
    const worker = createWorker();
    this.#worker = worker;
    try {
      const session = await upstream.login(email, password, signal);
      run.advance('downloading_key');
      const aesKey = deriveArchiveAesKey(await session.api.fetchKeyFragment(signal));
      run.advance('decrypting');
      // A wrong key or a broken end is told at once, while the thread is still starting.
      await (await openArchive(archivePath, aesKey)).close();
      const listener = {
        onLoading: () => run.advance('loading_images'),
        onProgress: (snapshot: UnlockSnapshot) => {
          this.#meter.take(snapshot);
          this.#changes.announce();
        },
      };
      return await worker.load(aesKey, listener, signal);
    } finally {
      await worker.terminate();
      this.#worker = undefined;
    }
  }

  /** Without it the next start does some work again; the images are loaded all the same. */
  async #writeReceipt(loaded: UnlockedArchive): Promise<void> {
    const { receipt, logger } = this.#options;
    try {
      await receipt.write(loaded);
    } catch (error) {
      logger.warn(
        { err: error },
        "The receipt can't be written to STATE_DIR: the next start will look through the archive again",
      );
    }
  }

  async #cancel(reason: LoaderError): Promise<void> {
    this.#starting?.abort.abort(reason);
    await this.#starting?.state.catch(() => undefined);
    this.#active?.cancel.abort(reason);
    await this.#active?.ended;
  }
}
