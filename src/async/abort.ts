/** A signal that never aborts: for work that nothing may break off. */
export const NEVER: AbortSignal = new AbortController().signal;

/** The reason of an aborted signal as an Error. */
export function abortReason(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new Error('aborted', { cause: signal.reason });
}

/** Waits for `promise`, but no longer than until `signal` aborts. @throws the reason of `signal` */
export async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  using _listener = onAbort(signal, reject);
  return await Promise.race([promise, aborted]);
}

/** Waits for a change. Returns true when it came, false when `signal` aborted first. */
export async function happens(change: Promise<unknown>, signal: AbortSignal): Promise<boolean> {
  try {
    await unlessAborted(change, signal);
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    throw error;
  }
}

/** Calls `listener` with the reason when `signal` aborts, at once if it has; no more after the disposal. */
export function onAbort(signal: AbortSignal, listener: (reason: Error) => void): Disposable {
  const listen = () => listener(abortReason(signal));
  if (signal.aborted) listen();
  else signal.addEventListener('abort', listen, { once: true });
  return {
    [Symbol.dispose]: () => signal.removeEventListener('abort', listen),
  };
}
