import { setTimeout as sleep } from 'node:timers/promises';

/** Waits for `ms`. Returns true when they have passed, false when `signal` aborted first. */
export async function passes(ms: number, signal: AbortSignal): Promise<boolean> {
  return await sleep(ms, true, { signal }).catch(() => false);
}

/**
 * Waits for `ms`. It is ours since Node's own wait throws an AbortError in place of the signal's reason.
 *
 * @throws the reason of `signal`
 */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch {
    signal.throwIfAborted();
  }
}
