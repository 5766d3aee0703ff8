import { createHash, type Hash } from 'node:crypto';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { archiveError } from './archive-error.ts';
import type { ArchiveLayer } from './archive-index.ts';

/**
 * Checks a layer's file while it streams by: a blob against the digest that its path promises, a plain tar against its
 * diff ID. A compressed file without a digest of its own is decompressed for it.
 */
export class LayerVerifier {
  readonly #layer: ArchiveLayer;
  readonly #hash: Hash = createHash('sha256');
  readonly #decompressor: Writable | undefined;
  readonly #decompressed: Promise<void> | undefined;
  /** Ends the wait for a decompressor that has failed: it takes nothing more, and says nothing more. */
  #stopWaiting: () => void = () => undefined;

  constructor(layer: ArchiveLayer) {
    this.#layer = layer;
    if (layer.sha256 !== undefined || layer.compression === 'none') return;
    const decompressor = layer.compression === 'gzip' ? createGunzip() : createZstdDecompress();
    this.#decompressor = decompressor;
    decompressor.once('close', () => this.#stopWaiting());
    this.#decompressed = pipeline(decompressor, async (plain: AsyncIterable<Buffer>) => {
      for await (const chunk of plain) this.#hash.update(chunk);
    });
    this.#decompressed.catch(() => undefined); // `end` tells.
  }

  /** Takes the next bytes of the file. They may be released afterwards. */
  async take(bytes: Buffer): Promise<void> {
    if (this.#decompressor === undefined) {
      this.#hash.update(bytes);
      return;
    }
    if (this.#decompressor.destroyed) return;
    const { promise: taken, resolve } = Promise.withResolvers<undefined>();
    const stopWaiting = () => resolve(undefined);
    this.#stopWaiting = stopWaiting;
    this.#decompressor.write(bytes, stopWaiting);
    await taken;
  }

  /** To be called after the last byte. @throws LoaderError `archive_invalid` */
  async end(): Promise<void> {
    const { diffId, sha256 } = this.#layer;
    try {
      this.#decompressor?.end();
      await this.#decompressed;
    } catch (error) {
      throw archiveError(`the layer ${diffId} can't be decompressed`, { cause: error });
    }
    const expected = sha256 ?? diffId.slice('sha256:'.length);
    if (this.#hash.digest('hex') !== expected) {
      throw archiveError(`the layer ${diffId} does not match its digest; nothing of its image was loaded`);
    }
  }

  /** Lets go of everything; to be called at the end, whatever it was. */
  close(): void {
    this.#decompressor?.destroy();
  }
}
