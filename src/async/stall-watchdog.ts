import type { Readable } from 'node:stream';
import { onAbort } from './abort.ts';
import { QueuedBytes } from './queued-bytes.ts';
import { StallTimer } from './stall-timer.ts';

export interface StallWatchdogOptions {
  /** The longest wait for the next byte, in ms. The time in which the consumer is busy does not count. */
  readonly timeoutMs: number;
  /** Makes the error of a stall. */
  readonly stalled: () => Error;
  readonly signal: AbortSignal;
}

/** Bytes that may be queued here while the consumer is busy, before the source is paused. One chunk may, where many are queued. */
const MAX_QUEUED_LENGTH = 256 * 1024;

/**
 * Yields the chunks of `source`, and fails when it goes silent or `signal` aborts. The source is destroyed whenever
 * this generator ends, so that no socket stays open.
 *
 * It is ours since a Readable's own iterator has no watchdog, and copies the chunks that have piled up into a new one.
 */
export async function* watchForStalls(
  source: Readable,
  options: StallWatchdogOptions,
): AsyncGenerator<Buffer, void, undefined> {
  const queue: Buffer[] = [];
  using queued = new QueuedBytes();
  let outcome: { readonly error?: Error } | undefined;
  let wake: (() => void) | undefined;
  const finish = (error?: Error) => {
    outcome ??= error === undefined ? {} : { error };
    wake?.();
  };
  source.on('data', (chunk: Buffer) => {
    queue.push(chunk);
    queued.add(chunk.length);
    if (queued.areOfMany || queued.length >= MAX_QUEUED_LENGTH) source.pause();
    wake?.();
  });
  source.once('end', finish);
  source.on('error', finish);
  source.once('close', () => finish(new Error('the stream was closed before its end')));
  using _abort = onAbort(options.signal, (reason) => {
    finish(reason);
    // At once: the consumer may be busy for long.
    queue.length = 0;
    queued.remove(queued.length);
    source.destroy();
  });
  using timer = new StallTimer(options.timeoutMs, () => {
    // While the consumer is busy, nothing waits for the source.
    if (wake !== undefined) finish(options.stalled());
  });
  try {
    // An event from before our listeners does not come again.
    if (source.readableEnded) finish();
    else if (source.destroyed) finish(source.errored ?? new Error('the stream was closed before its end'));
    for (;;) {
      for (let chunk = queue.shift(); chunk !== undefined; chunk = queue.shift()) {
        queued.remove(chunk.length);
        yield chunk;
        options.signal.throwIfAborted();
      }
      if (outcome?.error !== undefined) throw outcome.error;
      if (outcome !== undefined) return;
      timer.pat();
      const woken = new Promise<void>((resolve) => (wake = resolve));
      source.resume();
      await woken;
      wake = undefined;
    }
  } finally {
    source.destroy();
  }
}
