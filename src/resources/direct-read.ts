import { Outage, type Patience } from '../async/outage.ts';
import { StallTimer } from '../async/stall-timer.ts';
import type { WorkMemory } from '../files/work-memory.ts';
import type { TransferSource } from './shared-transfer.ts';

export interface DirectReadOptions {
  readonly memory: WorkMemory;
  readonly signal: AbortSignal;
  readonly patience: Patience;
  /** How long the consumer may be busy with one chunk before its connection and memory are given back, in ms. */
  readonly consumerPatienceMs?: number;
  /** How long it may read while other work waits for memory, in ms. */
  readonly turnMs?: number;
}

/** Bytes that wait in a connection to the CDN and behind it. */
const MEMORY = 1024 * 1024;
const CONSUMER_PATIENCE_MS = 5_000;
const TURN_MS = 10_000;

/**
 * Yields the bytes of an object from `start` on, straight from the CDN. A consumer that stalls holds neither a connection
 * nor memory meanwhile, and one that is slow gives both back after its turn when other work waits for the memory. Both are
 * asked for again when it goes on.
 *
 * @throws as `S3CdnManager.readRange` does
 */
export async function* readDirectly(
  { cdn, object }: Pick<TransferSource, 'cdn' | 'object'>,
  start: number,
  { memory, signal, patience, consumerPatienceMs = CONSUMER_PATIENCE_MS, turnMs = TURN_MS }: DirectReadOptions,
): AsyncGenerator<Buffer, void, undefined> {
  for (let position = start; position < object.length;) {
    using share = await memory.acquire(MEMORY, signal);
    const turnEndsAt = performance.now() + turnMs;
    const stalled = new AbortController();
    using timer = new StallTimer(consumerPatienceMs, () => {
      stalled.abort(new Error('the consumer has stalled'));
      share[Symbol.dispose]();
    });
    timer.pause();
    const care = { signal: AbortSignal.any([signal, stalled.signal]), outage: new Outage(patience) };
    for await (const chunk of cdn.readRange(object, position, object.length, care)) {
      position += chunk.length;
      timer.resume();
      yield chunk;
      timer.pause();
      if (stalled.signal.aborted || (memory.isWanted && performance.now() > turnEndsAt)) break;
    }
  }
}
