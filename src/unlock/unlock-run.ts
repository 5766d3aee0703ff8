import {
  archiveExists,
  archiveNotFound,
  isSameArchive,
  openArchive,
  readArchiveIdentity,
  type ArchiveIdentity,
} from '../archive/open-archive.ts';
import { abortReason } from '../async/abort.ts';
import type { Changes } from '../async/changes.ts';
import type { UnlockedArchive } from '../binary-split/unlock-archive.ts';
import { completeProgress, haltProgress, type UnlockProgress } from '../binary-split/unlock-progress.ts';
import type { UnlockWorker } from '../binary-split/unlock-worker.ts';
import { asLoaderError, type ErrorCode, type LoaderError } from '../errors.ts';
import { writeSmallFile } from '../files/small-file.ts';
import type { Logger } from '../log/logger.ts';
import { deriveArchiveAesKey } from '../security/key-derivation.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { Presence } from './presence.ts';
import { formatReceipt } from './receipt.ts';
import type { UnlockClaim } from './unlock-state-machine.ts';

/** What a run needs of an UnlockWorker. */
export type RunWorker = Pick<UnlockWorker, 'terminate' | 'unlock' | typeof Symbol.asyncDispose>;

export interface UnlockRunOptions {
  readonly upstream: Pick<Upstream, 'logInBeside' | 'login' | 'session'>;
  readonly presence: Pick<Presence, 'isLoaded'>;
  readonly archivePath: string;
  readonly receiptPath: string;
  readonly createWorker: () => RunWorker;
  /** Is told how each run has ended. */
  readonly onEnd?: (outcome: 'ready' | ErrorCode) => void;
  readonly logger: Logger;
}

/** The user whose key fragment a run uses. */
export interface Credentials {
  readonly email: string;
  readonly password: string;
}

/** What stands of the time before a run. */
export type EarlierRun = Pick<UnlockRun, 'progress' | 'unlocked'>;

/**
 * One run of the unlock. It checks whether there is anything to do. If so, it logs in, fetches the key fragment and
 * lets the worker load what the engine lacks. If not, it logs in beside. Without credentials it takes the session of the
 * user who is logged in. It belongs to no request, and ends its claim when its side effects have ended.
 */
export class UnlockRun {
  /**
   * Resolves when the run has checked that: true when it goes on, false when everything is unlocked already.
   *
   * It rejects with LoaderError `archive_not_found`, `archive_unreadable`; `engine_...` where there is no archive and
   * the engine can't be asked for its images; or the reason of the cancellation.
   */
  readonly begun: Promise<boolean>;
  /** Resolves when every side effect has ended. It never rejects. */
  readonly ended: Promise<void>;
  readonly #options: UnlockRunOptions;
  readonly #claim: UnlockClaim;
  readonly #changes: Changes;
  readonly #cancel = new AbortController();
  #worker: RunWorker | undefined;
  #progress: UnlockProgress | null;
  #unlocked: ArchiveIdentity | undefined;

  /** @param earlier the run before this one: its progress stands until this one begins */
  constructor(
    options: UnlockRunOptions,
    { claim, changes }: { readonly claim: UnlockClaim; readonly changes: Changes },
    credentials: Credentials | undefined,
    earlier: EarlierRun | undefined,
  ) {
    this.#options = options;
    this.#claim = claim;
    this.#changes = changes;
    this.#progress = earlier?.progress ?? null;
    this.#unlocked = earlier?.unlocked;
    this.begun = this.#begin();
    this.ended = this.#work(credentials);
  }

  get progress(): UnlockProgress | null {
    return this.#progress;
  }

  /** The archive that was last found loaded. */
  get unlocked(): ArchiveIdentity | undefined {
    return this.#unlocked;
  }

  /** Asks the run to end; `ended` resolves when it has. The first reason counts. */
  cancel(reason: LoaderError): void {
    this.#cancel.abort(reason);
  }

  /** Breaks off even what can't be taken back. */
  terminate(): void {
    void this.#worker?.terminate();
  }

  async #begin(): Promise<boolean> {
    const { archivePath, presence } = this.#options;
    const { signal } = this.#cancel;
    using claims = new DisposableStack();
    const claim = claims.use(this.#claim);
    const exists = await archiveExists(archivePath);
    if (!exists && !(await presence.isLoaded(signal))) {
      if (claim.state === 'ready') claim.advance('idle');
      throw archiveNotFound(archivePath);
    }
    if (claim.state === 'ready' && !(exists && (await this.#hasWork(signal)))) return false;
    signal.throwIfAborted();
    this.#progress = null;
    claim.advance(exists ? 'authenticating' : 'ready');
    claims.move(); // The run goes on and ends the claim later, or `ready` has ended it.
    return exists;
  }

  /** Tells whether the archive differs from the one that was unlocked, or the engine has lost one of its images. */
  async #hasWork(signal: AbortSignal): Promise<boolean> {
    const present = await readArchiveIdentity(this.#options.archivePath);
    if (this.#unlocked === undefined || !isSameArchive(present, this.#unlocked)) return true;
    try {
      return !(await this.#options.presence.isLoaded(signal));
    } catch {
      return true; // The run will meet the same failure, and its state will report it.
    }
  }

  async #work(credentials: Credentials | undefined): Promise<void> {
    // The callers that wait for `begun` get the failure to begin.
    const goesOn = await this.begun.catch(() => undefined);
    if (goesOn === undefined) return;
    if (!goesOn) {
      this.#logInBeside(credentials);
      return;
    }
    const { logger } = this.#options;
    const { signal } = this.#cancel;
    try {
      await this.#unlock(credentials, signal);
      this.#progress &&= completeProgress(this.#progress);
      this.#claim.advance('ready');
      this.#options.onEnd?.('ready');
    } catch (error) {
      const failure = asLoaderError(signal.aborted ? abortReason(signal) : error);
      logger.error({ err: failure, code: failure.code }, 'The unlock failed');
      this.#progress &&= haltProgress(this.#progress);
      this.#claim.fail(failure);
      this.#options.onEnd?.(failure.code);
    }
  }

  async #unlock(credentials: Credentials | undefined, signal: AbortSignal): Promise<void> {
    const { archivePath, logger, presence } = this.#options;
    const startedAtMs = performance.now();
    if (await presence.isLoaded(signal)) {
      this.#unlocked = await readArchiveIdentity(archivePath);
      logger.info('The images of the archive are loaded already');
      this.#logInBeside(credentials);
      return;
    }
    const loaded = await this.#load(credentials, signal);
    this.#unlocked = loaded.identity;
    await this.#writeReceipt(loaded);
    logger.info({ images: loaded.images.length, ms: Math.round(performance.now() - startedAtMs) }, 'Unlocked');
  }

  /** The client expects to be logged in, as after a run that loads images, but `ready` does not wait for that. */
  #logInBeside(credentials: Credentials | undefined): void {
    if (credentials === undefined) return;
    void this.#options.upstream.logInBeside(credentials.email, credentials.password, this.#cancel.signal);
  }

  async #load(credentials: Credentials | undefined, signal: AbortSignal): Promise<UnlockedArchive> {
    const { archivePath, createWorker, upstream } = this.#options;
    // It is made before the login, so that the thread has started when it is needed.
    await using worker = createWorker();
    this.#worker = worker;
    const session =
      credentials === undefined
        ? await upstream.session(signal)
        : await upstream.login(credentials.email, credentials.password, signal);
    this.#claim.advance('downloading_key');
    const aesKey = deriveArchiveAesKey(await session.api.fetchKeyFragment(signal));
    this.#claim.advance('decrypting');
    // This reports a wrong key or a broken end at once, while the thread is still starting.
    await (await openArchive(archivePath, aesKey))[Symbol.asyncDispose]();
    const steps = worker.unlock(aesKey, signal);
    let step = await steps.next();
    for (; step.done !== true; step = await steps.next()) this.#show(step.value);
    return step.value;
  }

  /** The first progress means that the engine begins to get images. */
  #show(progress: UnlockProgress): void {
    this.#progress = progress;
    if (this.#claim.state === 'decrypting') this.#claim.advance('loading_images');
    else this.#changes.announce();
  }

  /** Without the receipt, the next start does some work again, but the images are loaded. */
  async #writeReceipt(loaded: UnlockedArchive): Promise<void> {
    const { receiptPath, logger } = this.#options;
    try {
      await writeSmallFile(receiptPath, formatReceipt(loaded));
    } catch (error) {
      logger.warn(
        { err: error },
        "The receipt can't be written to STATE_DIR: the next start will look through the archive again",
      );
    }
  }
}
