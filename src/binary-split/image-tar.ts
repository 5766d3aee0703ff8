import type { EnvelopeReader } from '../security/envelope-reader.ts';
import { releaseChunk } from '../files/release-chunk.ts';
import { LayerVerifier } from '../archive/layer-verifier.ts';
import type { ImageLoad } from './image-load-plan.ts';
import { createTarHeader, paddedLength, TAR_BLOCK_LENGTH } from '../archive/tar-header.ts';

export interface ImageTarOptions {
  readonly archive: EnvelopeReader;
  /** Called between layers and end; the end follows when it returns. Without the end, the engine makes no image of what it has got. */
  readonly beforeEnd: () => Promise<void>;
  /** Bytes of layers that were taken. */
  readonly onBytes: (length: number) => void;
  readonly signal: AbortSignal;
}

const END_MARK = Buffer.alloc(2 * TAR_BLOCK_LENGTH);

/**
 * The tar of one image as `docker save` writes it in the classic layout, with those layers that are to be sent:
 *
 *     <diff ID>.tar ..., <image ID>.json, manifest.json
 *
 * Config and manifest come last, when every layer was found to match its digest: what is cut before them is no image.
 */
export class ImageTar {
  readonly #load: ImageLoad;
  readonly #tail: Buffer;

  constructor(load: ImageLoad) {
    this.#load = load;
    this.#tail = createTail(load);
  }

  /** Bytes of the whole tar. */
  get length(): number {
    const layers = this.#load.sentLayers.map(({ file }) => TAR_BLOCK_LENGTH + paddedLength(file.length));
    return layers.reduce((total, length) => total + length, this.#tail.length);
  }

  /** @throws LoaderError `archive_invalid`, or what `beforeEnd` threw, or the reason of the signal */
  async *chunks({ archive, beforeEnd, onBytes, signal }: ImageTarOptions): AsyncGenerator<Buffer, void, undefined> {
    for (const layer of this.#load.sentLayers) {
      const { start, length } = layer.file;
      yield createTarHeader(layerPath(layer.diffId), length);
      const verifier = new LayerVerifier(layer);
      try {
        for await (const chunk of archive.stream(start, start + length)) {
          await verifier.take(chunk);
          signal.throwIfAborted();
          onBytes(chunk.length);
          yield chunk;
          // Larger than what a socket queues: the next is asked for when the system has taken this one.
          if (chunk.length >= MIN_RELEASED_LENGTH) releaseChunk(chunk);
        }
        await verifier.end();
      } finally {
        verifier.close();
      }
      yield Buffer.alloc(paddedLength(length) - length);
    }
    await beforeEnd();
    signal.throwIfAborted();
    yield this.#tail;
  }
}

/** undici writes a chunk of at least this many bytes through before it asks for the next one. */
const MIN_RELEASED_LENGTH = 128 * 1024;

function createTail({ configJson, id, tags, layers }: ImageLoad): Buffer {
  const configPath = `${hexOf(id)}.json`;
  const manifest = Buffer.from(
    JSON.stringify([{ Config: configPath, RepoTags: tags, Layers: layers.map(({ diffId }) => layerPath(diffId)) }]),
  );
  return Buffer.concat([...fileEntry(configPath, configJson), ...fileEntry('manifest.json', manifest), END_MARK]);
}

function fileEntry(name: string, content: Buffer): Buffer[] {
  return [createTarHeader(name, content.length), content, Buffer.alloc(paddedLength(content.length) - content.length)];
}

function layerPath(diffId: string): string {
  return `${hexOf(diffId)}.tar`;
}

function hexOf(digest: string): string {
  return digest.slice('sha256:'.length);
}
