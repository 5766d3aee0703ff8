import { NO_PATIENCE, Outage, type Patience } from '../async/outage.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import { hasErrorCode, LoaderError, toError } from '../errors.ts';
import type { DraftFile } from '../files/draft-file.ts';
import type { WorkMemory } from '../files/work-memory.ts';
import type { Logger } from '../log/logger.ts';
import { MAX_PARALLEL, type Parallelism } from '../net/parallelism.ts';
import type { ChunkPool } from './chunk-pool.ts';
import { DraftChunks, WRITE_LENGTH } from './draft-chunks.ts';
import { Follower } from './follower.ts';
import type { TransferSource } from './transfer-source.ts';
import { rangesOf, type Range } from './ranges-of.ts';
import { WrittenRanges } from './written-ranges.ts';

/*
 * How a big part comes from the CDN into the cache, for all callers who want it at the same time.
 *
 * - SharedTransfers knows the transfers that are under way, and lets callers join them.
 * - A SharedTransfer fetches one version of one object. Its ranges come side by side and are written to their places in a
 *   draft of the cache. There is no buffer between the CDN and its readers, so memory stays the same however many they
 *   are and however slow, and a late reader finds in the file what came before it.
 * - WrittenRanges knows which bytes of the draft are there. It is the only place where readers and writers meet.
 * - A Follower is the part of one caller in a transfer. It tells how far the draft can be read, or waits until the cache
 *   has the whole. Its disposal leaves the transfer.
 *
 * Keep these true:
 *
 * - Fetch each byte once, however many follow. A chunk that does not match its digest is fetched once more.
 * - Where digests are known, tell of no byte before its chunk was right.
 * - Wait for no follower: the slowest one delays neither the transfer nor the others.
 * - Abort the transfer when its last follower leaves before the last byte has come. After that byte, finish it.
 * - Touch the draft only when no range is being written: publish it whole, or remove it.
 * - Keep the draft open until the transfer has ended and its last follower has left.
 * - Tell the followers the first failure. The failures of the other ranges are its echo.
 * - Wait for a CDN that fails as long as the most patient follower does. The others leave before.
 * - Tell a failure of the disk as `cache_unusable`, one that is foreseen as `disk_full_ahead`, and no other so: a reader
 *   then turns to the CDN.
 * - Hold memory only while ranges are fetched. They wait for no reader, so every share comes back.
 * - Do not fail a reader when only the publication failed: all bytes were there.
 */

/** Bytes of one ranged GET. Longer ones are no faster (docs/architecture.md), and a reader waits longer for the first. */
const RANGE_LENGTH = 8 * 1024 * 1024;
/** The memory of one range: what is collected, and what waits for that in the connection. */
const RANGE_MEMORY = WRITE_LENGTH + 512 * 1024;

export interface SharedTransferOptions {
  readonly source: TransferSource;
  readonly cache: Pick<BigPartCache, 'createDraft' | 'publish'>;
  readonly pool: Pick<ChunkPool, 'digest'>;
  /** Of the bytes that all uploads and transfers hold together: a transfer waits for its share before its first range. */
  readonly memory: WorkMemory;
  /** Of all transfers. */
  readonly parallelism: Parallelism;
  readonly logger: Logger;
}

/** One transfer of an object from the CDN into the cache. It runs from its construction. */
export class SharedTransfer {
  /** Ends, and never fails, when no range and no publication is under way any more. */
  readonly ended: Promise<void>;
  readonly written: WrittenRanges;
  readonly draft: Promise<DraftFile>;
  readonly #options: SharedTransferOptions;
  readonly #abort = new AbortController();
  readonly #outage = new Outage(() => this.#patience);
  /** The patience of each follower. */
  readonly #followers = new Map<Follower, Patience>();
  #chunks: DraftChunks | undefined;
  #publishFailure: Error | undefined;

  constructor(options: SharedTransferOptions) {
    this.#options = options;
    this.written = new WrittenRanges(options.source.object.length, RANGE_LENGTH);
    this.draft = options.cache.createDraft(options.source.object.length);
    this.ended = this.#run();
  }

  /** False once the transfer has failed or all followers have left: the next caller needs a new one. */
  get isJoinable(): boolean {
    return !this.#abort.signal.aborted;
  }

  /** Bytes of the object. */
  get length(): number {
    return this.#options.source.object.length;
  }

  /** The reason why a whole file was not published. */
  get publishFailure(): Error | undefined {
    return this.#publishFailure;
  }

  /** `signal` ends the waits of this follower; it does not leave by that. */
  join(signal: AbortSignal, patience: Patience): Follower {
    const follower = new Follower(this, { signal, patienceMs: patience.limitMs });
    this.#followers.set(follower, patience);
    return follower;
  }

  /** It waits for the end of the transfer unless others follow one that is unfinished. */
  async leave(follower: Follower): Promise<void> {
    if (!this.#followers.delete(follower)) return;
    if (!this.written.isComplete) {
      if (this.#followers.size > 0) return;
      this.#fail(new LoaderError('client_closed', 'All clients of the transfer have left.'));
    }
    await this.ended;
    // A caller may have joined before the end. The last one to leave closes the file.
    if (this.#followers.size > 0) return;
    const draft = await this.#openDraft();
    await draft?.[Symbol.asyncDispose]();
  }

  /** That of the most patient follower. */
  get #patience(): Patience {
    const patiences = [...this.#followers.values()].sort((a, b) => b.limitMs - a.limitMs);
    const { limitMs, setting } = patiences[0] ?? NO_PATIENCE;
    return { limitMs, setting, onWait: (failure) => failure && this.written.wait(failure, this.#outage.ageMs) };
  }

  async #run(): Promise<void> {
    try {
      await this.#fetch();
      await this.#publish();
    } catch (error) {
      this.#fail(error);
    }
    await this.#removeDraft();
  }

  async #fetch(): Promise<void> {
    const { source, pool, logger } = this.#options;
    const draft = await this.draft;
    const reading = { signal: this.#abort.signal, outage: this.#outage };
    const chunks = new DraftChunks({ source, draft, pool, memory: this.#options.memory, reading, logger });
    this.#chunks = chunks;
    const most = Math.min(MAX_PARALLEL, Math.ceil(this.length / RANGE_LENGTH));
    const { memory, parallelism } = this.#options;
    using _share = await memory.acquire(most * RANGE_MEMORY, this.#abort.signal);
    const ranges = rangesOf(this.length, RANGE_LENGTH);
    parallelism.begin();
    const fetches: Promise<void>[] = [];
    const widen = () => {
      while (fetches.length < parallelism.count) fetches.push(this.#fetchRanges(ranges, chunks, finish));
    };
    const finish = (length: number, ms: number) => {
      parallelism.finish(length, ms);
      widen();
    };
    widen();
    // The first failure is the true one; it is thrown when no range is written any more. Further fetches may come meanwhile.
    for (const fetch of fetches) await fetch;
    if (this.written.failure !== undefined) throw this.written.failure;
  }

  /** Never fails: its failure is that of the transfer. */
  async #fetchRanges(ranges: Iterable<Range>, chunks: DraftChunks, finish: Parallelism['finish']): Promise<void> {
    try {
      for (const range of ranges) {
        const startedAtMs = performance.now();
        await this.#fetchRange(range, chunks);
        finish(range.end - range.start, performance.now() - startedAtMs);
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  async #fetchRange({ index, start, end }: Range, chunks: DraftChunks): Promise<void> {
    const { isVerified } = chunks;
    /** The chunks are seen to one after the other, so that those who follow hear of them in their order. */
    let seen: Promise<void> = Promise.resolve();
    let seenUntil = start;
    try {
      for await (const position of chunks.store(start, end)) {
        if (!isVerified) this.written.advance(index, position - start);
        for (; seenUntil < position; seenUntil += chunks.chunkLength) {
          const chunkStart = seenUntil;
          const chunkEnd = Math.min(end, chunkStart + chunks.chunkLength);
          if (chunkEnd > position) break;
          seen = seen.then(async () => {
            await chunks.see(chunkStart, chunkEnd);
            if (isVerified) this.written.advance(index, chunkEnd - start);
          });
          seen.catch(() => undefined); // It is thrown below.
        }
      }
    } finally {
      await seen; // The draft must not be closed before.
    }
  }

  /** Never fails: a failure costs the copy only. */
  async #publish(): Promise<void> {
    const { source, cache, logger } = this.#options;
    try {
      await source.pair.confirm(this.#abort.signal);
      await cache.publish(source.resource, await this.draft, { ...source.record, chunks: this.#chunks?.digests });
    } catch (error) {
      this.#publishFailure = toError(error);
      logger.warn({ err: error, bytes: this.length }, 'A big part was loaded but could not be cached');
    }
  }

  #fail(error: unknown): void {
    if (this.written.failure !== undefined) return;
    this.written.fail(toError(error));
    this.#abort.abort(error);
    if (!hasErrorCode(error, 'cache_unusable', 'disk_full_ahead')) return;
    this.#options.logger.warn({ err: error, bytes: this.length }, 'A big part is loaded without the cache');
  }

  /** Its followers may go on reading it. */
  async #removeDraft(): Promise<void> {
    try {
      const draft = await this.#openDraft();
      await draft?.discard();
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'An unfinished file of the cache could not be removed');
    }
  }

  /** Undefined where the draft could not be made. */
  async #openDraft(): Promise<DraftFile | undefined> {
    try {
      return await this.draft;
    } catch {
      return undefined; // That failed the transfer already.
    }
  }
}
