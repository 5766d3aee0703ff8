import type { Readable } from 'node:stream';

export interface StallWatchdogOptions {
  /** How long a wait for the next byte may last, in ms. The time in which the consumer is busy does not count. */
  readonly timeoutMs: number;
  /** Makes the error of a stall. */
  readonly stalled: () => Error;
  readonly signal: AbortSignal;
}

/**
 * Yields the chunks of `source`, and fails when it goes silent or `signal` aborts.
 *
 * The source is destroyed whenever this generator ends, so that no socket stays open behind it.
 */
export async function* watchForStalls(
  source: Readable,
  options: StallWatchdogOptions,
): AsyncGenerator<Buffer, void, undefined> {
  let isWaiting = true;
  const timer = setTimeout(() => {
    if (isWaiting) source.destroy(options.stalled());
  }, options.timeoutMs);
  const onAbort = () => source.destroy(abortReason(options.signal));
  options.signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (options.signal.aborted) onAbort();
    for await (const chunk of source as AsyncIterable<Buffer>) {
      isWaiting = false;
      yield chunk;
      isWaiting = true;
      timer.refresh();
    }
  } finally {
    clearTimeout(timer);
    options.signal.removeEventListener('abort', onAbort);
    source.destroy();
  }
}

/** The reason of an aborted signal as an Error. */
export function abortReason(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new Error('aborted', { cause: signal.reason });
}
