import { pause } from './pause.ts';

export interface RetryPolicy {
  /** The number of all calls, including the first one. */
  readonly attempts: number;
  /** Upper bound of the first pause, in ms; it doubles with each further one. The pause is random below its bound. */
  readonly baseDelayMs: number;
  readonly isRetryable: (error: unknown) => boolean;
}

/** The longest pause between two attempts, in ms. */
const MAX_DELAY_MS = 10_000;

/**
 * Counts the failures of work that is tried again in a loop. It is ours since the libraries' retries wrap a function,
 * which a stream that resumes can't be.
 */
export class RetryCounter {
  readonly #policy: RetryPolicy;
  #failures = 0;

  constructor(policy: RetryPolicy) {
    this.#policy = policy;
  }

  /** Waits before the next attempt, or throws `error` when there is to be none. */
  async pauseOrThrow(error: unknown, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#failures++;
    if (this.#failures >= this.#policy.attempts || !this.#policy.isRetryable(error)) throw error;
    const delayMs = Math.random() * this.#policy.baseDelayMs * 2 ** (this.#failures - 1);
    await pause(Math.min(delayMs, MAX_DELAY_MS), signal);
  }
}
