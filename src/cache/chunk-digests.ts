import { webcrypto } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import { readSmallFile, UnfitFileError } from '../files/small-file.ts';

/** Digests of the chunks of a copy, its sums; they stand beside it as `<name>.big.sums`. */
export interface ChunkDigests {
  /** Bytes of the big part. */
  readonly bigLength: number;
  /** SHA-256, hex, of each chunk; the last one may be shorter. */
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
const MAX_SUMS_LENGTH = 4 * 1024 * 1024;
/** Errors of reading sums that are lost. Others, such as too many open files, say nothing about them. */
const DAMAGED: readonly string[] = ['EIO', 'ELOOP', 'ENXIO'];

/**
 * Reads the first `length` bytes of a file, chunk by chunk. Read and digested in the thread pool, through one buffer:
 * the event loop only copies it, which takes about a millisecond.
 *
 * @throws LoaderError `cache_unusable` when the file ends before or a block of it is lost; the reason of `signal`; the
 * system's error where it says nothing about the file
 */
export async function* digestChunks(
  file: FileHandle,
  length: number,
  signal: AbortSignal,
): AsyncGenerator<ChunkDigest, void, undefined> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(DIGEST_CHUNK_LENGTH, length));
  try {
    for (let position = 0; position < length; position += DIGEST_CHUNK_LENGTH) {
      const chunk = buffer.subarray(0, Math.min(DIGEST_CHUNK_LENGTH, length - position));
      await readFully(file, chunk, position);
      const digest = await webcrypto.subtle.digest('SHA-256', chunk);
      signal.throwIfAborted();
      yield { length: chunk.length, sha256: Buffer.from(digest).toString('hex') };
    }
  } finally {
    releaseChunk(buffer);
  }
}

async function readFully(file: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let filled = 0; filled < chunk.length;) {
    const { bytesRead } = await file.read(chunk, filled, chunk.length - filled, position + filled).catch(lostBlock);
    if (bytesRead === 0) throw new LoaderError('cache_unusable', 'The copy in the cache was cut while it was read.');
    filled += bytesRead;
  }
}

function lostBlock(error: unknown): never {
  if (systemErrorCode(error) !== 'EIO') throw error;
  throw new LoaderError('cache_unusable', 'A block of the copy in the cache can not be read.', { cause: error });
}

export function formatSums({ bigLength, chunkSha256 }: ChunkDigests): string {
  return JSON.stringify({ version: 1, bigLength, chunkLength: DIGEST_CHUNK_LENGTH, chunkSha256 });
}

/** The sums in a file; undefined when there are none, or none that can be used. @throws the system's error */
export async function readSums(filePath: string): Promise<ChunkDigests | undefined> {
  try {
    const text = await readSmallFile(filePath, MAX_SUMS_LENGTH);
    return text === undefined ? undefined : parseSums(text);
  } catch (error) {
    if (error instanceof UnfitFileError || DAMAGED.includes(systemErrorCode(error) ?? '')) return undefined;
    throw error;
  }
}

function parseSums(text: string): ChunkDigests | undefined {
  try {
    const sums = JSON.parse(text) as Record<string, unknown> | null;
    const { version, bigLength, chunkLength, chunkSha256 } = sums ?? {};
    if (version !== 1 || chunkLength !== DIGEST_CHUNK_LENGTH || typeof bigLength !== 'number') return undefined;
    if (!Array.isArray(chunkSha256) || !chunkSha256.every(isDigest)) return undefined;
    return chunkSha256.length === chunkCount(bigLength) ? { bigLength, chunkSha256 } : undefined;
  } catch {
    return undefined;
  }
}

function chunkCount(bigLength: number): number {
  return Math.ceil(bigLength / DIGEST_CHUNK_LENGTH);
}

function isDigest(value: unknown): value is string {
  return typeof value === 'string' && /^[\da-f]{64}$/.test(value);
}
