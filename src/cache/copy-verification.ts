import { LoaderError } from '../errors.ts';
import type { OpenCopy } from './open-copy.ts';
import { digestChunks, type ChunkDigests } from './chunk-digests.ts';

export interface CheckOptions {
  readonly signal: AbortSignal;
  /** Told the bytes of each chunk when it was read. */
  readonly onBytes: (bytes: number) => void;
}

/**
 * Reads a copy to its end, or to the first chunk that is not as `sums` tells, and answers the sums that it has.
 *
 * @throws LoaderError when the copy is bad; the reason of the signal; the system's error where it says nothing about it
 */
export async function checkCopy(
  copy: OpenCopy,
  sums: ChunkDigests | undefined,
  { signal, onBytes }: CheckOptions,
): Promise<ChunkDigests> {
  if (sums !== undefined && sums.bigLength !== copy.length) {
    throw new LoaderError('envelope_invalid', 'The copy in the cache does not have the length that its sums tell.');
  }
  const chunkSha256: string[] = [];
  for await (const chunk of digestChunks(copy.handle, copy.length, signal)) {
    onBytes(chunk.length);
    if (sums !== undefined && sums.chunkSha256[chunkSha256.length] !== chunk.sha256) {
      throw new LoaderError('envelope_invalid', `Chunk ${chunkSha256.length} of the copy in the cache is damaged.`);
    }
    chunkSha256.push(chunk.sha256);
  }
  return { bigLength: copy.length, chunkSha256 };
}
