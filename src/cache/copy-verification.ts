import { webcrypto } from 'node:crypto';
import { NEVER } from '../async/abort.ts';
import { Semaphore } from '../async/semaphore.ts';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { EndOfFileError, readFully } from '../files/file-chunks.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import type { Logger } from '../log/logger.ts';
import { CHUNK_LENGTH } from '../manifest/chunk-digester.ts';
import { isNotThere, toCacheError } from './cache-error.ts';
import { isAt, isUnfit, type CopyFiles, type OpenCopy } from './copy-files.ts';
import { placeKey, type CopyPlace } from './copy-paths.ts';
import type { ChunkDigests } from './copy-record.ts';
import type { CopyRecords } from './copy-records.ts';

export interface VerifyOptions {
  readonly signal: AbortSignal;
  /** Told the bytes of each chunk that was read. */
  readonly onBytes?: (bytes: number) => void;
}

/** The chunks of a copy that do not match their digests, or are missing. They can be fetched again, each alone. */
export interface DamagedChunks {
  readonly damaged: readonly number[];
}

/**
 * What a verification finds: the copy fits its digests, has only now got some, can't be one and was set aside, is not there
 * any more, or has damaged chunks and stays: no load takes one of them.
 */
export type Verdict = 'good' | 'recorded' | 'bad' | 'absent' | DamagedChunks;

/** Reads copies whole and compares them with the digests of their records. Callers may load and publish the copy meanwhile. */
export class CopyVerification {
  readonly #files: CopyFiles;
  readonly #records: CopyRecords;
  readonly #logger: Logger;
  readonly #background = new Semaphore(1);
  /** The copies whose records are being made, or wait for that. */
  readonly #recording = new Set<string>();

  constructor(files: CopyFiles, records: CopyRecords, logger: Logger) {
    this.#files = files;
    this.#records = records;
    this.#logger = logger;
  }

  /**
   * Verifies one copy. Where it has no digests, as one of an older Loader, they are made of the copy as it is: missing
   * digests are no reason to fetch a copy again that is probably good.
   *
   * @throws the reason of `signal`; LoaderError `cache_unusable` when something else than the copy is at fault, or when one
   * that is none can't be set aside
   */
  async verify(place: CopyPlace, options: VerifyOptions): Promise<Verdict> {
    options.signal.throwIfAborted();
    try {
      await using copy = await this.#files.open(place);
      if (copy === undefined) return 'absent';
      if (isUnfit(copy)) return await this.#condemn(place, copy.reason, copy.inode);
      return await this.#compare(place, copy, options);
    } catch (error) {
      options.signal.throwIfAborted();
      if (isNotThere(error)) return 'absent';
      throw toCacheError(error, 'read');
    }
  }

  /**
   * Makes the record of a copy that has none of today, as one that an earlier version kept: one copy after the other. It
   * never throws.
   */
  async makeRecord(place: CopyPlace): Promise<void> {
    if (this.#recording.has(placeKey(place))) return;
    this.#recording.add(placeKey(place));
    using _permit = await this.#background.acquire(NEVER);
    try {
      await this.#takeOver(place);
    } catch (error) {
      this.#logger.warn({ err: error, resource: place }, 'The record of a copy in the cache could not be made');
    } finally {
      this.#recording.delete(placeKey(place));
    }
  }

  async #takeOver(place: CopyPlace): Promise<void> {
    await using copy = await this.#files.open(place);
    if (copy === undefined || isUnfit(copy) || copy.isRecorded) return;
    // An earlier version has kept its digests.
    if (copy.record?.chunks !== undefined) await this.#keep(place, copy, copy.record.chunks);
    else await this.#compare(place, copy, { signal: NEVER });
  }

  async #compare(place: CopyPlace, copy: OpenCopy, options: VerifyOptions): Promise<Verdict> {
    const known = copy.record?.chunks;
    if (known !== undefined) return await this.#compareWith(known, place, copy, options);
    const chunkSha256: string[] = [];
    try {
      for await (const { length, sha256 } of digestChunks(copy, CHUNK_LENGTH, options.signal)) {
        options.onBytes?.(length);
        if (sha256 === undefined) throw new LoaderError('cache_unusable', 'A part of the copy in the cache is lost.');
        chunkSha256.push(sha256);
      }
    } catch (error) {
      options.signal.throwIfAborted(); // Its reason may be a LoaderError too.
      if (!(error instanceof LoaderError)) throw error;
      return await this.#condemn(place, error, copy.inode);
    }
    return (await this.#keep(place, copy, { chunkLength: CHUNK_LENGTH, chunkSha256 })) ? 'recorded' : 'absent';
  }

  async #compareWith(known: ChunkDigests, place: CopyPlace, copy: OpenCopy, options: VerifyOptions): Promise<Verdict> {
    const damaged: number[] = [];
    let index = 0;
    for await (const { length, sha256 } of digestChunks(copy, known.chunkLength, options.signal)) {
      options.onBytes?.(length);
      if (sha256 !== known.chunkSha256[index]) damaged.push(index);
      index++;
    }
    if (!copy.isRecorded && !(await this.#keep(place, copy, known))) return 'absent';
    const paths = await this.#files.find(place);
    if (!(await isAt(paths.big, copy.inode))) return 'absent';
    return damaged.length > 0 ? { damaged } : 'good';
  }

  /** @throws LoaderError `cache_unusable` when the copy could not be moved out of the way */
  async #condemn(place: CopyPlace, reason: unknown, inode: bigint): Promise<'bad' | 'absent'> {
    const outcome = await this.#files.setAside(place, reason, inode);
    if (outcome !== 'stuck') return outcome === 'set_aside' ? 'bad' : 'absent';
    throw new LoaderError(
      'cache_unusable',
      'A bad copy in the cache could not be set aside and is still served: remove it by hand.',
      { cause: reason },
    );
  }

  /** Returns false when the copy is no longer the present one. */
  async #keep(place: CopyPlace, { inode, length }: OpenCopy, chunks: ChunkDigests): Promise<boolean> {
    return await this.#records.change(place, inode, (record) => ({
      smallSha256: undefined,
      ...record,
      bigLength: length,
      chunks,
    }));
  }
}

/** One chunk that was read. */
interface ChunkDigest {
  /** Bytes of it. */
  readonly length: number;
  /** Undefined where the file ends before, or a block of it is lost. */
  readonly sha256: string | undefined;
}

/**
 * Reads a copy, chunk by chunk. Reading and digesting happen in the thread pool, through one
 * buffer: the event loop only copies it, which takes about a millisecond.
 *
 * @throws the reason of `signal`; the system's error where it says nothing about the file
 */
async function* digestChunks(
  { handle, length }: OpenCopy,
  chunkLength: number,
  signal: AbortSignal,
): AsyncGenerator<ChunkDigest, void, undefined> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(chunkLength, length));
  try {
    for (let start = 0; start < length; start += chunkLength) {
      const end = Math.min(length, start + chunkLength);
      const chunk = await readFully(handle, buffer, start, end).catch(undefinedIfLost);
      const digest = chunk && (await webcrypto.subtle.digest('SHA-256', chunk));
      signal.throwIfAborted();
      yield { length: end - start, sha256: digest && Buffer.from(digest).toString('hex') };
    }
  } finally {
    releaseChunk(buffer);
  }
}

function undefinedIfLost(error: unknown): undefined {
  if (!(error instanceof EndOfFileError) && systemErrorCode(error) !== 'EIO') throw error;
}
