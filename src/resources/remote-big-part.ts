import { toCutFileError } from '../cache/cache-error.ts';
import { hasErrorCode } from '../errors.ts';
import type { Manifest } from '../manifest/manifest.ts';
import type { BigPart, BigPartReading } from './big-part.ts';
import { ChunkMender } from './chunk-mender.ts';
import { readDirectly } from './direct-read.ts';
import type { SmallPart } from './envelope-parts.ts';
import type { Follower } from './follower.ts';
import { PlaintextReader, type PlaintextRange } from './plaintext-reader.ts';
import type { SharedTransfers } from './shared-transfers.ts';
import type { TransferSource } from './transfer-source.ts';

export interface RemoteBigPartOptions extends BigPartReading {
  readonly transfers: SharedTransfers;
}

/**
 * The big part as the CDN has it. It is read through the cache, together with all callers who want the same version, and
 * straight from the CDN where the cache can't be written.
 */
export class RemoteBigPart implements BigPart {
  readonly source: TransferSource;
  readonly manifest: Manifest | undefined;
  readonly #options: RemoteBigPartOptions;
  #follower: Follower | undefined;

  constructor(source: TransferSource, manifest: Manifest | undefined, options: RemoteBigPartOptions) {
    this.source = source;
    this.manifest = manifest;
    this.#options = options;
  }

  get length(): number {
    return this.source.object.length;
  }

  plaintextLength(small: SmallPart): number {
    return small.plaintextLength(this.source.object);
  }

  /** @throws LoaderError `cdn_object_changed` before the last bytes, where they are found to be of another version */
  async *plaintext(small: SmallPart, range: PlaintextRange): AsyncGenerator<Buffer, void, undefined> {
    let position = range.start;
    for await (const piece of this.#read(small, range)) {
      position += piece.length;
      if (position === range.end) await this.source.pair.confirm(this.#options.signal);
      yield piece;
    }
  }

  async *#read(small: SmallPart, range: PlaintextRange): AsyncGenerator<Buffer, void, undefined> {
    const { transfers, signal, patience } = this.#options;
    this.#follower = transfers.join(this.source, signal, patience);
    let position = range.start;
    try {
      const file = await this.#fileOf(this.#follower);
      for await (const piece of new PlaintextReader(file, small, this.#options).read(range)) {
        position += piece.length; // Before the consumer releases its memory.
        yield piece;
      }
      return;
    } catch (error) {
      const failure = toCutFileError(error);
      if (!hasErrorCode(failure, 'cache_unusable', 'disk_full_ahead')) throw failure;
    }
    await this[Symbol.asyncDispose](); // The transfer's file takes room on a disk that may be full.
    yield* readDirectly(this.source, small, { start: position, end: range.end }, this.#options);
  }

  async #fileOf(follower: Follower) {
    const { handle, writeBack } = await follower.file();
    const { record, resource } = this.source;
    const { cdn } = this.#options.session;
    const mender = new ChunkMender({ ...this.#options, resource, record, cdn, writeBack });
    return {
      handle,
      length: this.length,
      chunks: this.source.record.chunks,
      reach: (end: number) => follower.reach(end),
      isThere: (end: number) => follower.isThere(end),
      mend: (index: number, reason: Error) => mender.mend(index, reason),
    };
  }

  /**
   * Leaves the transfer. The end of `plaintext` is too early for that: it waits until the cache has its copy, and the client
   * must not wait for the disk.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#follower?.[Symbol.asyncDispose]();
  }
}
