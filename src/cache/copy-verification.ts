import { webcrypto } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { NEVER } from '../async/abort.ts';
import { Semaphore } from '../async/semaphore.ts';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { readFully } from '../files/file-chunks.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import { readSmallFile, UnfitFileError } from '../files/small-file.ts';
import type { Logger } from '../log/logger.ts';
import { isNotThere, toCacheError, toCutFileError } from './cache-error.ts';
import {
  DIGEST_CHUNK_LENGTH,
  formatDigests,
  MAX_DIGESTS_LENGTH,
  parseDigests,
  type ChunkDigests,
} from './chunk-digests.ts';
import { isAt, isUnfit, type CopyFiles, type OpenCopy } from './copy-files.ts';
import type { CopyPlace } from './copy-paths.ts';
import type { DraftsFolder } from './drafts-folder.ts';

export interface VerifyOptions {
  readonly signal: AbortSignal;
  /** Told the bytes of each chunk that was read. */
  readonly onBytes?: (bytes: number) => void;
}

/**
 * What a verification finds: the copy fits its digests, has only now got some, is bad and was set aside, or is not there
 * any more.
 */
export type Verdict = 'good' | 'recorded' | 'bad' | 'absent';

/** Errors of reading digests that are lost. Others, such as too many open files, say nothing about them. */
const DAMAGED: readonly string[] = ['EIO', 'ELOOP', 'ENXIO'];

/** Reads copies whole and compares them with their digests. Callers may load and publish the copy meanwhile. */
export class CopyVerification {
  readonly #files: CopyFiles;
  readonly #drafts: DraftsFolder;
  readonly #logger: Logger;
  readonly #background = new Semaphore(1);

  constructor(files: CopyFiles, drafts: DraftsFolder, logger: Logger) {
    this.#files = files;
    this.#drafts = drafts;
    this.#logger = logger;
  }

  /**
   * Verifies one copy. Where it has no digests, or damaged ones, they are made of the copy as it is: missing digests are
   * no reason to fetch a copy again that is probably good.
   *
   * @throws the reason of `signal`; LoaderError `cache_unusable` when something else than the copy is at fault, or when a
   * bad one can't be set aside
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
   * Makes the digests of a copy that was just published, one copy after the other. The bytes come from the system's
   * memory of the file: to digest them on their way into it would make a load from the CDN take a third longer. It never
   * throws.
   */
  async makeDigests(place: CopyPlace): Promise<void> {
    using _permit = await this.#background.acquire(NEVER);
    try {
      await this.verify(place, { signal: NEVER });
    } catch (error) {
      this.#logger.warn({ err: error, resource: place }, 'The digests of a copy in the cache could not be made');
    }
  }

  async #compare(place: CopyPlace, copy: OpenCopy, options: VerifyOptions): Promise<Verdict> {
    const paths = await this.#files.find(place);
    const digests = await readDigests(paths.digests);
    let present: ChunkDigests;
    try {
      present = await readAgainst(digests, copy, options);
    } catch (error) {
      options.signal.throwIfAborted(); // Its reason may be a LoaderError too.
      if (!(error instanceof LoaderError)) throw error;
      return await this.#condemn(place, error, copy.inode);
    }
    if (digests === undefined) return (await this.#publishDigests(place, copy, present)) ? 'recorded' : 'absent';
    return (await isAt(paths.big, copy.inode)) ? 'good' : 'absent';
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
  async #publishDigests(place: CopyPlace, copy: OpenCopy, digests: ChunkDigests): Promise<boolean> {
    using _lock = await this.#files.lock(place);
    // Looked up again: while the copy was read, a link that leads out of the cache may have replaced its folder.
    const paths = await this.#files.find(place);
    if (!(await isAt(paths.big, copy.inode))) return false;
    await using draft = await this.#drafts.create();
    await draft.write(Buffer.from(formatDigests(digests)), 0);
    await draft.publish(paths.digests);
    return true;
  }
}

/** The digests in a file; undefined when there are none, or none that can be used. @throws the system's error */
async function readDigests(filePath: string): Promise<ChunkDigests | undefined> {
  try {
    const text = await readSmallFile(filePath, MAX_DIGESTS_LENGTH);
    return text === undefined ? undefined : parseDigests(text);
  } catch (error) {
    if (error instanceof UnfitFileError || DAMAGED.includes(systemErrorCode(error) ?? '')) return undefined;
    throw error;
  }
}

/**
 * Reads a copy to its end, or to the first chunk that does not fit `digests`, and returns the digests that it has.
 *
 * @throws LoaderError when the copy is bad; the reason of the signal; the system's error where it says nothing about the
 * copy
 */
async function readAgainst(
  digests: ChunkDigests | undefined,
  copy: OpenCopy,
  { signal, onBytes }: VerifyOptions,
): Promise<ChunkDigests> {
  if (digests !== undefined && digests.bigLength !== copy.length) {
    throw new LoaderError('envelope_invalid', 'The copy in the cache does not have the length that its digests tell.');
  }
  const chunkSha256: string[] = [];
  for await (const chunk of digestChunks(copy.handle, copy.length, signal)) {
    onBytes?.(chunk.length);
    if (digests !== undefined && digests.chunkSha256[chunkSha256.length] !== chunk.sha256) {
      throw new LoaderError('envelope_invalid', `Chunk ${chunkSha256.length} of the copy in the cache is damaged.`);
    }
    chunkSha256.push(chunk.sha256);
  }
  return { bigLength: copy.length, chunkSha256 };
}

/** One chunk that was read. */
interface ChunkDigest {
  /** Bytes of it. */
  readonly length: number;
  readonly sha256: string;
}

/**
 * Reads the first `length` bytes of a file, chunk by chunk. Reading and digesting happen in the thread pool, through one
 * buffer: the event loop only copies it, which takes about a millisecond.
 *
 * @throws LoaderError `cache_unusable` when the file ends early or a block of it is lost; the reason of `signal`; the
 * system's error where it says nothing about the file
 */
async function* digestChunks(
  file: FileHandle,
  length: number,
  signal: AbortSignal,
): AsyncGenerator<ChunkDigest, void, undefined> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(DIGEST_CHUNK_LENGTH, length));
  try {
    for (let start = 0; start < length; start += DIGEST_CHUNK_LENGTH) {
      const end = Math.min(length, start + DIGEST_CHUNK_LENGTH);
      const chunk = await readFully(file, buffer, start, end).catch(faultOfCopy);
      const digest = await webcrypto.subtle.digest('SHA-256', chunk);
      signal.throwIfAborted();
      yield { length: chunk.length, sha256: Buffer.from(digest).toString('hex') };
    }
  } finally {
    releaseChunk(buffer);
  }
}

function faultOfCopy(error: unknown): never {
  if (systemErrorCode(error) !== 'EIO') throw toCutFileError(error);
  throw new LoaderError('cache_unusable', 'A block of the copy in the cache can not be read.', { cause: error });
}
