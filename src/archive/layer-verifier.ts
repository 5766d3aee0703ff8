import { createHash, type Hash } from 'node:crypto';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import type { EnvelopeReader } from '../security/envelope-reader.ts';
import { archiveError } from './archive-error.ts';
import { layerDigest, type LayerDigest } from './archive-images.ts';
import type { ArchiveLayer } from './archive-index.ts';

/**
 * Yields a layer's file as it is. It fails at the end when the layer does not match its digest. Each chunk belongs to
 * the consumer, which may release it before the next one.
 *
 * @throws LoaderError `archive_invalid`; EndOfFileError when the archive's file ends early
 */
export async function* readLayer(
  archive: EnvelopeReader,
  layer: ArchiveLayer,
): AsyncGenerator<Buffer, void, undefined> {
  const { start, length } = layer.file;
  using verifier = new LayerVerifier(layer);
  for await (const chunk of archive.stream(start, start + length)) {
    await verifier.take(chunk);
    yield chunk;
  }
  await verifier.end();
}

/**
 * Checks a layer's file while it streams by. It decompresses the file where the digest is that of the uncompressed
 * layer. Its disposal releases everything.
 */
export class LayerVerifier implements Disposable {
  readonly #diffId: string;
  readonly #digest: LayerDigest;
  readonly #hash: Hash = createHash('sha256');
  readonly #decompressor: Writable | undefined;
  readonly #decompressed: Promise<void> | undefined;
  /** Ends the wait for a decompressor that has failed, since that takes nothing more and calls nothing back. */
  #stopWaiting: () => void = () => undefined;

  constructor(layer: ArchiveLayer) {
    this.#diffId = layer.diffId;
    this.#digest = layerDigest(layer, layer.compression);
    if (this.#digest.of === 'file') return;
    const decompressor = layer.compression === 'gzip' ? createGunzip() : createZstdDecompress();
    this.#decompressor = decompressor;
    decompressor.once('close', () => this.#stopWaiting());
    this.#decompressed = pipeline(decompressor, async (plain: AsyncIterable<Buffer>) => {
      for await (const chunk of plain) this.#hash.update(chunk);
    });
    this.#decompressed.catch(() => undefined); // `end` throws it.
  }

  /** Takes the next bytes of the file. The caller may release them afterwards. */
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

  /** Call it after the last byte. @throws LoaderError `archive_invalid` */
  async end(): Promise<void> {
    try {
      this.#decompressor?.end();
      await this.#decompressed;
    } catch (error) {
      throw archiveError(`the layer ${this.#diffId} can't be decompressed`, { cause: error });
    }
    if (this.#hash.digest('hex') !== this.#digest.hex) {
      throw archiveError(`the layer ${this.#diffId} does not match its digest; nothing of its image was loaded`);
    }
  }

  [Symbol.dispose](): void {
    this.#decompressor?.destroy();
  }
}
