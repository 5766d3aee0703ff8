import { createDecipheriv, createHash } from 'node:crypto';
import { Outage, type Patience } from '../async/outage.ts';
import { StallTimer } from '../async/stall-timer.ts';
import type { WorkMemory } from '../files/work-memory.ts';
import { BLOCK_LENGTH } from '../security/envelope.ts';
import { DECRYPT_LENGTH } from '../security/envelope-cipher.ts';
import { damagedOnCdn } from './chunk-mender.ts';
import type { SmallPart } from './envelope-parts.ts';
import type { PlaintextRange } from './plaintext-reader.ts';
import type { TransferSource } from './transfer-source.ts';

export interface DirectReadOptions {
  readonly memory: WorkMemory;
  readonly signal: AbortSignal;
  readonly patience: Patience;
  /** How long the consumer may be busy with one chunk before its connection and memory are given back, in ms. */
  readonly consumerPatienceMs?: number;
  /** How long it may read while other work waits for memory, in ms. */
  readonly turnMs?: number;
}

type DirectSource = Pick<TransferSource, 'cdn' | 'object' | 'record' | 'resource'>;

/** Bytes that wait in a connection to the CDN and behind it. */
const MEMORY = 1024 * 1024;
const CONSUMER_PATIENCE_MS = 5_000;
const TURN_MS = 10_000;

/**
 * Yields a range of a resource's plaintext, straight from the CDN: where the cache can't be written. Where the digests of
 * its chunks are known, nothing of a chunk leaves before its digest was right.
 *
 * @throws LoaderError `resource_damaged`; as `S3CdnManager.readRange` does
 */
export async function* readDirectly(
  source: DirectSource,
  small: SmallPart,
  range: PlaintextRange,
  options: DirectReadOptions,
): AsyncGenerator<Buffer, void, undefined> {
  const { length } = source.object;
  if (!small.isAligned) {
    const stored = Buffer.concat(await Array.fromAsync(storedBytes(source, 0, length, options), copyOf));
    yield small.decryptWith(stored).subarray(range.start, range.end);
    return;
  }
  const head = small.plaintext();
  if (range.start < head.length) yield head.subarray(range.start, range.end);
  const start = Math.max(0, range.start - head.length);
  const end = range.end - head.length;
  if (end <= start) return;
  const unit = source.record.chunks?.chunkLength ?? BLOCK_LENGTH;
  // A block is decrypted after the one before it, which must be right too.
  const from = Math.max(0, Math.floor(start / unit) - 1) * unit;
  const to = Math.min(length, Math.ceil(end / unit) * unit);
  // Without the block before it, the first one comes out wrong; it lies before the range.
  const iv = from === 0 ? small.lastBlock : Buffer.alloc(BLOCK_LENGTH);
  const decipher = createDecipheriv('aes-256-cbc', small.aesKey, iv).setAutoPadding(false);
  let position = from;
  for await (const stored of storedBytes(source, from, to, options)) {
    for (let used = 0; used < stored.length; used += DECRYPT_LENGTH) {
      const plaintext = decipher.update(stored.subarray(used, used + DECRYPT_LENGTH));
      const piece = plaintext.subarray(Math.max(0, start - position), Math.max(0, end - position));
      position += plaintext.length;
      if (piece.length > 0) yield piece;
    }
  }
}

/** Yields the stored bytes of a range, verified where digests are known; `start` and `end` are then those of chunks. */
async function* storedBytes(
  source: DirectSource,
  start: number,
  end: number,
  options: DirectReadOptions,
): AsyncGenerator<Buffer, void, undefined> {
  const { chunks } = source.record;
  if (chunks === undefined) {
    yield* readInTurns(source, { start, end }, 0, options);
    return;
  }
  const { chunkLength, chunkSha256 } = chunks;
  for (let position = start; position < end; position += chunkLength) {
    const index = position / chunkLength;
    const range = { start: position, end: Math.min(end, position + chunkLength) };
    const isRight = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex') === chunkSha256[index];
    let bytes = await collect(source, range, options);
    if (!isRight(bytes)) bytes = await collect(source, range, options); // It may have been damaged on its way.
    if (!isRight(bytes)) throw damagedOnCdn(source.resource, index);
    yield bytes;
  }
}

async function collect(source: DirectSource, range: PlaintextRange, options: DirectReadOptions): Promise<Buffer> {
  const length = range.end - range.start;
  return Buffer.concat(await Array.fromAsync(readInTurns(source, range, length, options), copyOf));
}

/** The chunks of a connection are valid until the next one only. */
function copyOf(chunk: Buffer): Buffer {
  return Buffer.from(chunk);
}

/**
 * Yields the bytes of a range of an object. A consumer that stalls holds neither a connection nor memory meanwhile, and one
 * that is slow gives both back after its turn when other work waits for the memory. Both are asked for again when it goes
 * on. `extraMemory` is what the consumer itself collects, in bytes.
 */
async function* readInTurns(
  { cdn, object }: DirectSource,
  { start, end }: PlaintextRange,
  extraMemory: number,
  { memory, signal, patience, consumerPatienceMs = CONSUMER_PATIENCE_MS, turnMs = TURN_MS }: DirectReadOptions,
): AsyncGenerator<Buffer, void, undefined> {
  for (let position = start; position < end;) {
    using share = await memory.acquire(MEMORY + extraMemory, signal);
    const turnEndsAt = performance.now() + turnMs;
    const stalled = new AbortController();
    using timer = new StallTimer(consumerPatienceMs, () => {
      stalled.abort(new Error('the consumer has stalled'));
      share[Symbol.dispose]();
    });
    timer.pause();
    const care = { signal: AbortSignal.any([signal, stalled.signal]), outage: new Outage(patience) };
    for await (const chunk of cdn.readRange(object, position, end, care)) {
      position += chunk.length;
      timer.resume();
      yield chunk;
      timer.pause();
      if (stalled.signal.aborted || (memory.isWanted && performance.now() > turnEndsAt)) break;
    }
  }
}
