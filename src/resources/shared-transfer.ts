import type { DraftFile } from '../files/draft-file.ts';
import type { CdnObject, S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import { hasErrorCode, LoaderError, systemErrorCode, toError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { EndOfFileError, FILE_CHUNK_LENGTH, readFileChunks } from '../files/file-chunks.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import { unlessAborted } from '../async/abort.ts';

/** Bytes of one ranged GET, and how many of them run side by side. */
const RANGE_LENGTH = 8 * 1024 * 1024;
const PARALLEL_RANGES = 4;
/** Bytes that are collected before they are written. */
const WRITE_LENGTH = 512 * 1024;

export interface SharedTransferOptions {
  readonly cdn: S3CdnManager;
  readonly object: CdnObject;
  readonly createDraft: () => Promise<DraftFile>;
  /** Called with the whole file. */
  readonly publish: (file: DraftFile) => Promise<void>;
  readonly logger: Logger;
}

/** One caller's view of a transfer. */
export interface Follower {
  /**
   * The object's bytes from its beginning, as far as they are there, and then as they come.
   *
   * @throws LoaderError `cache_unusable` when the file can't be written: the caller must read from the CDN itself. Any
   * other error is the CDN's, or the reason of `signal`.
   */
  chunks(signal: AbortSignal): AsyncGenerator<Buffer, void, undefined>;
  /**
   * Waits until the whole object is published in the cache, without reading it. `onBytes` is told how many bytes were
   * written so far, of all ranges together; that never goes back.
   *
   * @throws LoaderError `cache_unusable` when the file can't be written or published. Any other error is the CDN's, or,
   * at once, the reason of `signal`.
   */
  stored(signal: AbortSignal, onBytes: (bytesStored: number) => void): Promise<void>;
  /**
   * Must be called once, after the last chunk was used. When the last one leaves an unfinished transfer, that is aborted:
   * its connections are closed then, and its file is gone.
   */
  leave(): Promise<void>;
}

/**
 * One transfer of an object from the CDN into the cache, for all who want it at the same time.
 *
 * Ranges are fetched side by side and written to their places in an unfinished file; followers read that file up to
 * the first byte that is missing. So memory stays the same however many they are, however fast each reads, and a late
 * one begins with what is there. When the last one leaves before the end, the transfer is aborted.
 */
export class SharedTransfer {
  /** Ends, never failing, when no more followers may join. */
  readonly ended: Promise<void>;
  readonly #options: SharedTransferOptions;
  readonly #abort = new AbortController();
  readonly #file: Promise<DraftFile>;
  /** Bytes that were written of each range. */
  readonly #written: number[];
  /** Sum of `#written`. */
  #bytesStored = 0;
  readonly #waiters = new Set<Waiter>();
  /** Told when bytes were written. */
  readonly #listeners = new Set<() => void>();
  #nextRange = 0;
  /** All ranges before this one are complete. */
  #firstOpenRange = 0;
  #followers = 0;
  #isClosed = false;
  #failure: Error | undefined;
  /** Why a whole file was not published. */
  #publishFailure: Error | undefined;

  constructor(options: SharedTransferOptions) {
    this.#options = options;
    this.#written = new Array<number>(Math.ceil(options.object.length / RANGE_LENGTH)).fill(0);
    this.#file = options.createDraft();
    this.ended = this.#run();
  }

  /** False once the transfer has failed or was left by everybody: the next caller needs a new one. */
  get isJoinable(): boolean {
    return !this.#abort.signal.aborted;
  }

  join(): Follower {
    this.#followers++;
    let left = false;
    return {
      chunks: (signal) => this.#follow(signal),
      stored: (signal, onBytes) => this.#waitUntilStored(signal, onBytes),
      leave: async () => {
        if (left) return;
        left = true;
        this.#followers--;
        const isUnfinished = this.#available() < this.#options.object.length;
        if (this.#followers > 0 && isUnfinished) return; // It goes on for the others.
        if (isUnfinished) this.#abort.abort(new LoaderError('client_closed', 'All clients of the transfer have left.'));
        await this.ended;
        // Somebody may have joined before the end, who closes it then.
        if (this.#followers === 0) await this.#close();
      },
    };
  }

  async *#follow(signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
    const file = await this.#file;
    const { length } = this.#options.object;
    try {
      yield* readFileChunks(file.handle, 0, length, FILE_CHUNK_LENGTH, (position) => this.#waitFor(position, signal));
    } catch (error) {
      if (!(error instanceof EndOfFileError)) throw error;
      throw new LoaderError('cache_unusable', 'An unfinished file of the cache was cut.', { cause: error });
    }
  }

  async #waitUntilStored(signal: AbortSignal, onBytes: (bytesStored: number) => void): Promise<void> {
    signal.throwIfAborted();
    const { promise: listenerFailed, reject } = Promise.withResolvers<never>();
    const listener = () => {
      try {
        onBytes(this.#bytesStored);
      } catch (error) {
        reject(toError(error)); // It is this follower's own, not the transfer's.
      }
    };
    this.#listeners.add(listener);
    try {
      listener();
      await unlessAborted(Promise.race([this.ended, listenerFailed]), signal);
    } finally {
      this.#listeners.delete(listener);
    }
    const failure = this.#failure ?? this.#publishFailure;
    if (failure !== undefined) throw failure;
  }

  async #run(): Promise<void> {
    const { logger, object } = this.#options;
    try {
      const file = await this.#file;
      // All must have settled before the file is touched; the first failure is the true one, the others echo it.
      await Promise.allSettled(Array.from({ length: PARALLEL_RANGES }, () => this.#fetchRanges(file)));
      if (this.#failure !== undefined) throw this.#failure;
      await this.#options.publish(file).catch((error: unknown) => {
        this.#publishFailure = toError(error);
        logger.warn({ err: error, bytes: object.length }, 'A big part was loaded but could not be cached');
      });
    } catch (error) {
      this.#fail(error);
      if (hasErrorCode(error, 'cache_unusable')) {
        logger.warn({ err: error, bytes: object.length }, 'A big part is loaded without the cache');
      }
    }
    const file = await this.#file.catch(() => undefined);
    await file?.discard().catch((error: unknown) => {
      logger.warn({ err: error }, 'An unfinished file of the cache could not be removed');
    });
  }

  async #fetchRanges(file: DraftFile): Promise<void> {
    try {
      for (let index = this.#nextRange++; index < this.#written.length; index = this.#nextRange++) {
        await this.#fetchRange(file, index);
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  async #fetchRange(file: DraftFile, index: number): Promise<void> {
    const { cdn, object } = this.#options;
    const start = index * RANGE_LENGTH;
    const end = Math.min(object.length, start + RANGE_LENGTH);
    const block = Buffer.allocUnsafeSlow(Math.min(WRITE_LENGTH, end - start));
    let filled = 0;
    let position = start;
    for await (const chunk of cdn.readRange(object, start, end, this.#abort.signal)) {
      for (let used = 0; used < chunk.length;) {
        const copied = chunk.copy(block, filled, used);
        used += copied;
        filled += copied;
        if (filled < block.length && position + filled < end) continue;
        await writeToCache(file, block.subarray(0, filled), position);
        position += filled;
        filled = 0;
        this.#advance(index, position - start);
      }
      releaseChunk(chunk);
    }
  }

  #advance(index: number, written: number): void {
    this.#bytesStored += written - (this.#written[index] ?? 0);
    this.#written[index] = written;
    while (this.#written[this.#firstOpenRange] === RANGE_LENGTH) this.#firstOpenRange++;
    const available = this.#available();
    for (const waiter of this.#waiters) {
      if (waiter.position <= available) waiter.resolve();
    }
    for (const listener of this.#listeners) listener();
  }

  /** All bytes before this position are in the file. */
  #available(): number {
    return this.#firstOpenRange * RANGE_LENGTH + (this.#written[this.#firstOpenRange] ?? 0);
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = toError(error);
    this.#abort.abort(this.#failure);
    for (const waiter of this.#waiters) waiter.reject(this.#failure);
  }

  async #waitFor(position: number, signal: AbortSignal): Promise<void> {
    if (position <= this.#available()) return;
    if (this.#failure !== undefined) throw this.#failure;
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const waiter: Waiter = {
      position,
      resolve: () => resolve(undefined),
      reject,
    };
    this.#waiters.add(waiter);
    try {
      await unlessAborted(promise, signal);
    } finally {
      this.#waiters.delete(waiter);
    }
  }

  async #close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const file = await this.#file.catch(() => undefined);
    await file?.close();
  }
}

interface Waiter {
  readonly position: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Whatever goes wrong with the disk, the caller can do without the cache. */
async function writeToCache(file: DraftFile, block: Buffer, position: number): Promise<void> {
  try {
    await file.write(block, position);
  } catch (error) {
    throw new LoaderError(
      'cache_unusable',
      `The cache could not be written (${systemErrorCode(error) ?? 'unknown'}).`,
      {
        cause: error,
      },
    );
  }
}
