import { toCacheError } from '../cache/cache-error.ts';
import type { ChunkDigests } from '../cache/copy-record.ts';
import type { RangeReading } from '../cdn/object-reader.ts';
import type { DraftFile } from '../files/draft-file.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import type { WorkMemory } from '../files/work-memory.ts';
import type { Logger } from '../log/logger.ts';
import { CHUNK_LENGTH } from '../manifest/chunk-digester.ts';
import { damagedOnCdn } from './chunk-mender.ts';
import type { ChunkPool } from './chunk-pool.ts';
import type { TransferSource } from './transfer-source.ts';

/** Bytes that are collected before they are written. */
export const WRITE_LENGTH = 512 * 1024;

export interface DraftChunksOptions {
  readonly source: TransferSource;
  readonly draft: DraftFile;
  readonly pool: Pick<ChunkPool, 'digest'>;
  readonly memory: WorkMemory;
  readonly reading: RangeReading;
  readonly logger: Logger;
}

/** The chunks of an object on their way into a draft: stored in any order, then digested. */
export class DraftChunks {
  readonly #options: DraftChunksOptions;
  readonly #chunkSha256: string[] = [];

  constructor(options: DraftChunksOptions) {
    this.#options = options;
  }

  /** Bytes of a chunk. */
  get chunkLength(): number {
    return this.#options.source.record.chunks?.chunkLength ?? CHUNK_LENGTH;
  }

  /** Whether the digests are known beforehand. */
  get isVerified(): boolean {
    return this.#options.source.record.chunks !== undefined;
  }

  /** Of all chunks that were seen. */
  get digests(): ChunkDigests {
    return { chunkLength: this.chunkLength, chunkSha256: this.#chunkSha256 };
  }

  /** Makes the digest of a chunk in the draft. One that is known already must be that: the chunk is fetched once more. */
  async see(start: number, end: number): Promise<void> {
    const { source } = this.#options;
    const index = start / this.chunkLength;
    const known = source.record.chunks?.chunkSha256[index];
    let digest = await this.#digest(start, end);
    if (known !== undefined && digest !== known) {
      this.#options.logger.warn(
        { resource: source.resource, chunk: index },
        'A chunk came damaged: it is fetched again',
      );
      await Array.fromAsync(this.store(start, end));
      digest = await this.#digest(start, end);
      if (digest !== known) throw damagedOnCdn(source.resource, index);
    }
    this.#chunkSha256[index] = digest;
  }

  async #digest(start: number, end: number): Promise<string> {
    const { handle } = this.#options.draft;
    try {
      return await this.#options.pool.digest({ fd: handle.fd, position: start, length: end - start });
    } catch (error) {
      throw toCacheError(error, 'read');
    }
  }

  /** Fetches bytes of the object into the draft, and yields up to which position they are there. */
  async *store(start: number, end: number): AsyncGenerator<number, void, undefined> {
    const { draft, memory, reading, source } = this.#options;
    const { cdn, object } = source;
    using owned = new DisposableStack();
    // Taken when there is a connection: more ranges than that may wait for one.
    let block: Buffer | undefined;
    let filled = 0;
    let position = start;
    for await (const chunk of cdn.readRange(object, start, end, reading)) {
      block ??= owned.use(memory.take(WRITE_LENGTH)).bytes;
      for (let used = 0; used < chunk.length;) {
        const copied = chunk.copy(block, filled, used);
        used += copied;
        filled += copied;
        if (filled < block.length && position + filled < end) continue;
        await writeToCache(draft, block.subarray(0, filled), position);
        position += filled;
        filled = 0;
        yield position;
      }
      releaseChunk(chunk);
    }
  }
}

/** @throws LoaderError `cache_unusable` whatever goes wrong with the disk: the caller can do without the cache */
async function writeToCache(draft: DraftFile, block: Buffer, position: number): Promise<void> {
  try {
    await draft.write(block, position);
  } catch (error) {
    throw toCacheError(error, 'written');
  }
}
