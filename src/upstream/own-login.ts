import { pause } from '../async/pause.ts';
import { asLoaderError, PassingError, type LoaderError } from '../errors.ts';
import type { ChangingFile } from '../files/changing-file.ts';
import type { Session, Upstream } from './upstream.ts';

export interface OwnLoginOptions {
  readonly upstream: Pick<Upstream, 'login' | 'latestSession'>;
  readonly email: string;
  readonly password: Pick<ChangingFile<string>, 'value'>;
  /** The pauses of a test. */
  readonly pauses?: Partial<OwnLoginPauses>;
}

/** In ms. */
export interface OwnLoginPauses {
  /** Between two looks at the password's file. */
  readonly look: number;
  /** After a login that failed in a way that may pass by itself, unless the server asks for a longer one. */
  readonly passing: number;
  /** After one that was refused: more of them may lock the account. */
  readonly refused: number;
}

const PAUSES: OwnLoginPauses = { look: 3_000, passing: 10_000, refused: 15 * 60_000 };

/**
 * Logs in without anyone's request: at the start, again until it succeeds, and when the file of the password has changed. A
 * login with other credentials takes over until the next start.
 */
export class OwnLogin {
  readonly #options: OwnLoginOptions;
  readonly #pauses: OwnLoginPauses;
  #session: Session | undefined;

  constructor(options: OwnLoginOptions) {
    this.#options = options;
    this.#pauses = { ...PAUSES, ...options.pauses };
  }

  /** Runs until `signal` aborts, or until another login takes over. It never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { password } = this.#options;
    let tried: string | undefined;
    let nextMs = 0;
    try {
      while (!this.#isTakenOver) {
        const text = await password.value();
        if (text !== tried || performance.now() >= nextMs) {
          nextMs = (await this.#logIn(text, signal)) + performance.now();
          tried = text;
        }
        await pause(Math.min(this.#pauses.look, Math.max(0, nextMs - performance.now())), signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Returns how long to wait before the next login. The failure is told by `Upstream`. */
  async #logIn(password: string, signal: AbortSignal): Promise<number> {
    const { upstream, email } = this.#options;
    try {
      this.#session = await upstream.login(email, password, signal);
      return Infinity;
    } catch (error) {
      signal.throwIfAborted();
      return this.#pauseAfter(asLoaderError(error));
    }
  }

  #pauseAfter(failure: LoaderError): number {
    const { passing, refused } = this.#pauses;
    if (failure.code === 'wrong_credentials') return refused;
    return Math.max(passing, failure instanceof PassingError ? (failure.retryAfterMs ?? 0) : 0);
  }

  get #isTakenOver(): boolean {
    const { latestSession } = this.#options.upstream;
    return latestSession !== undefined && latestSession !== this.#session;
  }
}
