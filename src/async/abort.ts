/** A signal that never aborts, for work that must not be broken off. */
export const NEVER: AbortSignal = new AbortController().signal;

/** The reason of an aborted signal as an Error. */
export function abortReason(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new Error('aborted', { cause: signal.reason });
}

/**
 * Waits for `promise`, but no longer than until `signal` aborts. It is ours since Node has no such wait that removes
 * its listener from a signal that lives long.
 *
 * @throws the reason of `signal`
 */
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

/**
 * Calls `listener` with the reason when `signal` aborts, or at once when it has aborted already. The disposal removes
 * the listener. It is ours since Node's `addAbortListener` calls it a turn later for an aborted signal, and passes no
 * reason.
 */
export function onAbort(signal: AbortSignal, listener: (reason: Error) => void): Disposable {
  const listen = () => listener(abortReason(signal));
  if (signal.aborted) listen();
  else signal.addEventListener('abort', listen, { once: true });
  return {
    [Symbol.dispose]: () => signal.removeEventListener('abort', listen),
  };
}
