import { webcrypto } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { readFully } from '../files/file-chunks.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import { readSmallFile, UnfitFileError } from '../files/small-file.ts';
import { asRecord, parseJson } from '../json.ts';
import { toCutFileError } from './cache-error.ts';

/** The digests of a copy's chunks. They stand beside it as `<name>.big.sums` (docs/protocol.md section 9). */
export interface ChunkDigests {
  /** Bytes of the big part. */
  readonly bigLength: number;
  /** SHA-256, hex, of each chunk; the last chunk may be shorter than the others. */
  readonly chunkSha256: readonly string[];
}

/** One chunk that was read. */
export interface ChunkDigest {
  /** Bytes of it. */
  readonly length: number;
  readonly sha256: string;
}

/** Bytes of a chunk, as in the integrity manifest (docs/protocol.md section 7). */
export const DIGEST_CHUNK_LENGTH = 4 * 1024 * 1024;
/** Enough for copies of 240 GiB. */
const MAX_DIGESTS_LENGTH = 4 * 1024 * 1024;
/** Errors of reading digests that are lost. Others, such as too many open files, say nothing about them. */
const DAMAGED: readonly string[] = ['EIO', 'ELOOP', 'ENXIO'];

/**
 * Reads the first `length` bytes of a file, chunk by chunk. Reading and digesting happen in the thread pool, through one
 * buffer: the event loop only copies it, which takes about a millisecond.
 *
 * @throws LoaderError `cache_unusable` when the file ends early or a block of it is lost; the reason of `signal`; the
 * system's error where it says nothing about the file
 */
export async function* digestChunks(
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

export function formatDigests({ bigLength, chunkSha256 }: ChunkDigests): string {
  return JSON.stringify({ version: 1, bigLength, chunkLength: DIGEST_CHUNK_LENGTH, chunkSha256 });
}

/** The digests in a file; undefined when there are none, or none that can be used. @throws the system's error */
export async function readDigests(filePath: string): Promise<ChunkDigests | undefined> {
  try {
    const text = await readSmallFile(filePath, MAX_DIGESTS_LENGTH);
    return text === undefined ? undefined : parseDigests(text);
  } catch (error) {
    if (error instanceof UnfitFileError || DAMAGED.includes(systemErrorCode(error) ?? '')) return undefined;
    throw error;
  }
}

function parseDigests(text: string): ChunkDigests | undefined {
  const { version, bigLength, chunkLength, chunkSha256 } = asRecord(parseJson(text)) ?? {};
  if (version !== 1 || chunkLength !== DIGEST_CHUNK_LENGTH || typeof bigLength !== 'number') return undefined;
  if (!Array.isArray(chunkSha256) || !chunkSha256.every(isDigest)) return undefined;
  return chunkSha256.length === chunkCount(bigLength) ? { bigLength, chunkSha256 } : undefined;
}

function chunkCount(bigLength: number): number {
  return Math.ceil(bigLength / DIGEST_CHUNK_LENGTH);
}

function isDigest(value: unknown): value is string {
  return typeof value === 'string' && /^[\da-f]{64}$/.test(value);
}
