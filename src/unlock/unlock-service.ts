import { archiveExists, readArchiveIdentity } from '../archive/open-archive.ts';
import { happens, onAbort } from '../async/abort.ts';
import { Changes } from '../async/changes.ts';
import type { UnlockProgress } from '../binary-split/unlock-progress.ts';
import { LoaderError, type ErrorCode, shuttingDown } from '../errors.ts';
import { UnlockRun, type Credentials, type EarlierRun, type UnlockRunOptions } from './unlock-run.ts';
import { UnlockStateMachine, type UnlockState } from './unlock-state-machine.ts';

export type UnlockServiceOptions = UnlockRunOptions;

export interface UnlockStatus {
  readonly state: UnlockState;
  /** Says why the last run failed, for people. */
  readonly error: string | null;
  readonly code: ErrorCode | null;
  readonly progress: UnlockProgress | null;
}

/** Keeps the runs of the unlock. One at a time is under way: it holds the machine's claim. */
export class UnlockService {
  readonly #options: UnlockServiceOptions;
  readonly #changes = new Changes();
  readonly #machine = new UnlockStateMachine(this.#changes);
  /** The last run, under way or ended. */
  #run: UnlockRun | undefined;
  /** The archive that was found loaded before any run. */
  #found: EarlierRun | undefined;
  #isStopped = false;
  #onRun: (email: string) => void = () => undefined;

  constructor(options: UnlockServiceOptions) {
    this.#options = options;
  }

  get status(): UnlockStatus {
    const { state, error } = this.#machine;
    const progress = state === 'idle' ? null : (this.#run?.progress ?? null);
    return { state, error: error?.message ?? null, code: error?.code ?? null, progress };
  }

  get isReady(): boolean {
    return this.#machine.state === 'ready';
  }

  /** Resolves at the next change of the status. */
  get nextChange(): Promise<undefined> {
    return this.#changes.next;
  }

  /**
   * Is ready without a run where the release is found loaded, as after a restart. A run that began looks for itself.
   *
   * @throws as `isLoaded` does
   */
  async findLoaded(signal: AbortSignal): Promise<void> {
    if (this.#run !== undefined) return;
    const { presence, archivePath, logger } = this.#options;
    const unlocked = (await archiveExists(archivePath)) ? await readArchiveIdentity(archivePath) : undefined;
    if (!(await presence.isLoaded(signal))) return;
    // A run that began meanwhile has the claim, or has left another state.
    using claim = this.#machine.claim();
    if (claim?.state !== 'idle') return;
    this.#found = { progress: null, unlocked };
    claim.advance('ready');
    logger.info('The images of the release are in the engine already');
  }

  /**
   * Goes back to idle when the images of a ready release are not all in the engine any more.
   *
   * @throws as `isLoaded` does
   */
  async recheck(signal: AbortSignal): Promise<void> {
    const run = this.#run;
    if (!this.isReady || (await this.#options.presence.isLoaded(signal))) return;
    // A run that began meanwhile has looked for itself.
    if (this.#run !== run) return;
    using claim = this.#machine.claim();
    if (claim?.state !== 'ready') return;
    claim.advance('idle');
    this.#options.logger.warn('An image of the release was removed from the engine: unlock again');
  }

  /** Calls `listener` for each run of a named user that begins from now on, with their email. There is one listener. */
  onRun(listener: (email: string) => void): void {
    this.#onRun = listener;
  }

  /**
   * Starts a run, unless one is under way or this very archive is unlocked, and returns the state then. Callers that come
   * at the same time share the run.
   *
   * @throws LoaderError `archive_not_found`, `archive_unreadable`, `shutting_down`; `engine_...` where there is no archive
   * and the engine can't be asked for its images
   */
  async start(email: string, password: string): Promise<UnlockState> {
    return await this.#start({ email, password });
  }

  /** Does the same with the session of the user who is logged in. */
  async startRelease(): Promise<UnlockState> {
    return await this.#start(undefined);
  }

  async #start(credentials: Credentials | undefined): Promise<UnlockState> {
    if (this.#isStopped) {
      throw shuttingDown();
    }
    const claim = this.#machine.claim();
    if (claim === undefined) {
      await this.#run?.begun;
    } else {
      const earlier = this.#run ?? this.#found;
      const run = new UnlockRun(this.#options, { claim, changes: this.#changes }, credentials, earlier);
      this.#run = run;
      if ((await run.begun) && credentials !== undefined) this.#onRun(credentials.email);
    }
    return this.#machine.state;
  }

  /** Ends the run that is under way, if there is one, and returns the state when all its side effects have ended. */
  async cancel(): Promise<UnlockState> {
    await this.#cancel(new LoaderError('unlock_cancelled', 'The unlock was cancelled.'));
    return this.#machine.state;
  }

  /** Does the same at the end of the process. When `deadline` aborts, even what can't be taken back is broken off. */
  async stop(deadline: AbortSignal): Promise<void> {
    this.#isStopped = true;
    using _deadline = onAbort(deadline, () => this.#run?.terminate());
    await this.#cancel(new LoaderError('unlock_cancelled', 'The Loader stopped before all was loaded: unlock again.'));
    // Watchers must not wait for a run that never begins.
    this.#changes.announce();
  }

  /**
   * Yields the status now and whenever it changes. It ends after the status of an ended run, and when the Loader stops.
   */
  async *watch(signal: AbortSignal): AsyncGenerator<UnlockStatus, void, undefined> {
    while (!signal.aborted) {
      const { status } = this;
      const change = this.#changes.next;
      yield status;
      if (status.state === 'ready' || status.state === 'error') return;
      // A run that is under way ends soon, and its watchers should see how.
      if (this.#isStopped && !this.#machine.isClaimed) return;
      if (!(await happens(change, signal))) return;
    }
  }

  async #cancel(reason: LoaderError): Promise<void> {
    this.#run?.cancel(reason);
    await this.#run?.ended;
  }
}
