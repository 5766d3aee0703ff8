import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';

export interface EventuallyOptions {
  /** How long the condition may take to come true, in ms. */
  readonly timeoutMs?: number;
  /** The time between two looks, in ms; with 0, which needs no timer, each turn of the event loop has one. */
  readonly pollMs?: number;
  /** Ends the wait. */
  readonly signal?: AbortSignal;
  /** What is awaited, for the message of the error. */
  readonly what?: string;
}

/** Waits until a condition holds. @throws Error when it does not hold in time; the reason of `signal` */
export async function eventually(
  condition: () => Promise<boolean> | boolean,
  { timeoutMs = 5_000, pollMs = 5, signal, what = 'the condition' }: EventuallyOptions = {},
): Promise<void> {
  for (const deadline = performance.now() + timeoutMs; !(await condition());) {
    if (performance.now() > deadline) throw new Error(`${what} did not come true within ${timeoutMs} ms`);
    signal?.throwIfAborted();
    await (pollMs === 0 ? nextTurn() : sleep(pollMs, undefined, signal === undefined ? {} : { signal }));
  }
}

/** Lets everything run that needs no timer and no I/O. */
export async function settle(): Promise<void> {
  await nextTurn();
  await nextTurn();
}
