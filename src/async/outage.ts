import { PassingError } from '../errors.ts';
import { pause } from './pause.ts';

/** How long work waits for something that fails and may work again. */
export interface Patience {
  /** From the last progress, in ms. */
  readonly limitMs: number;
  /** The variable that sets it, for messages. */
  readonly setting: string;
  /** Is called with each failure that is waited out, and with undefined when there is progress again. */
  readonly onWait?: ((failure: PassingError | undefined) => void) | undefined;
}

/** Of a caller that waits itself: each failure is thrown as it is. */
export const NO_PATIENCE: Patience = { limitMs: 0, setting: 'none' };

/** Bounds of a pause, in ms. The longest one is short beside the time that a gateway takes for its restart. */
const MIN_PAUSE_MS = 100;
const MAX_PAUSE_MS = 5_000;
/** How long a failure that is not likely to pass is waited out, from the first one, in ms. */
const DOUBTFUL_MS = 3_000;

/**
 * The failures of one source that follow one another without progress in between. They are waited out as long as the
 * patience lasts, with pauses that grow with the age of the outage. Several requests to the source may share one.
 *
 * It is ours since the libraries' retries count tries, and wrap a function, which a stream that resumes can't be.
 */
export class Outage {
  readonly #patience: () => Patience;
  #progressMs = performance.now();
  #firstFailureMs: number | undefined;
  #tries = 0;

  /** `patience` may change while the outage lasts. */
  constructor(patience: Patience | (() => Patience)) {
    this.#patience = typeof patience === 'function' ? patience : () => patience;
  }

  /** Since the last progress, in ms; 0 while nothing fails. */
  get ageMs(): number {
    return this.#firstFailureMs === undefined ? 0 : performance.now() - this.#progressMs;
  }

  /** Says that the source has given something, or that nothing was asked of it until now. */
  progress(): void {
    this.#progressMs = performance.now();
    if (this.#firstFailureMs === undefined) return;
    this.#firstFailureMs = undefined;
    this.#tries = 0;
    this.#patience().onWait?.(undefined);
  }

  /**
   * Waits before the next try, or throws `failure` when there is to be none; the message then says how often and how
   * long it was tried.
   *
   * @throws `failure`; the reason of `signal`
   */
  async waitOrThrow(failure: unknown, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!(failure instanceof PassingError)) throw failure;
    const now = performance.now();
    const firstMs = (this.#firstFailureMs ??= now);
    this.#tries++;
    const patience = this.#patience();
    if (patience.limitMs === 0) throw failure;
    const endMs = this.#progressMs + patience.limitMs;
    const leftMs = (failure.isDoubtful ? Math.min(endMs, firstMs + DOUBTFUL_MS) : endMs) - now;
    const askedMs = failure.retryAfterMs ?? 0;
    if (askedMs > Math.max(leftMs, 0)) throw failure.withNote(tooLong(askedMs, patience));
    if (leftMs <= 0) throw failure.withNote(this.#described(now));
    patience.onWait?.(failure);
    const ownMs = Math.min(MAX_PAUSE_MS, Math.max(MIN_PAUSE_MS, now - firstMs)) * (0.5 + Math.random() / 2);
    // Without the part of our own, all clients that were told the same would come back at once.
    await pause(Math.min(leftMs, askedMs === 0 ? ownMs : askedMs + ownMs / 10), signal);
  }

  #described(nowMs: number): string | undefined {
    if (this.#tries < 2) return undefined;
    const seconds = Math.max(1, Math.round((nowMs - this.#progressMs) / 1000));
    return `It was tried ${this.#tries} times within ${seconds} s.`;
  }
}

function tooLong(askedMs: number, { limitMs, setting }: Patience): string {
  return `It asks for a pause of ${Math.ceil(askedMs / 1000)} s, but the Loader waits for ${Math.round(limitMs / 1000)} s at most (${setting}).`;
}
