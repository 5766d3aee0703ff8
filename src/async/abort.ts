import { abortReason } from './stall-watchdog.ts';

/** Waits for `promise`, but no longer than until `signal` aborts. @throws the reason of `signal` */
export async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => {
    reject(abortReason(signal));
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** Waits for a change: true when it came, false when `signal` aborted before. */
export async function happens(change: Promise<unknown>, signal: AbortSignal): Promise<boolean> {
  try {
    await unlessAborted(change, signal);
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    throw error;
  }
}
