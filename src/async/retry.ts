import { setTimeout as sleep } from 'node:timers/promises';

export interface RetryPolicy {
  /** Calls in all, with the first one. */
  readonly attempts: number;
  /** Upper bound of the first pause, in ms; it doubles with each further one. The pause is random below its bound. */
  readonly baseDelayMs: number;
  readonly isRetryable: (error: unknown) => boolean;
  /** The pause that the failure asks for (Retry-After), in ms. It counts where it is longer than ours. */
  readonly requestedDelayMs?: (error: unknown) => number | undefined;
}

/** The longest pause between two attempts, in ms, whatever a server asks for. */
const MAX_DELAY_MS = 10_000;

/**
 * Runs `work` until it succeeds, fails for good, or has used up its attempts. It is ours since the libraries' retries wrap
 * a function only: a stream that resumes counts its failures by RetryCounter.
 */
export async function retry<T>(work: () => Promise<T>, policy: RetryPolicy, signal: AbortSignal): Promise<T> {
  const attempts = new RetryCounter(policy);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      await attempts.pauseOrThrow(error, signal);
    }
  }
}

/** Counts failures for work that can't be wrapped in a function, such as a stream that resumes. */
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
    const ownDelayMs = Math.random() * this.#policy.baseDelayMs * 2 ** (this.#failures - 1);
    const delayMs = Math.max(ownDelayMs, this.#policy.requestedDelayMs?.(error) ?? 0);
    await sleep(Math.min(delayMs, MAX_DELAY_MS), undefined, { signal }).catch(() => {
      signal.throwIfAborted(); // The reason, not the AbortError that wraps it.
    });
  }
}
