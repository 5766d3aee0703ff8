import type { ArchiveLayer } from '../archive/archive-index.ts';
import { createTarHeader, paddedLength, TAR_BLOCK_LENGTH } from '../archive/tar-header.ts';
import type { ImageLoad } from './image-load-plan.ts';

const END_MARK = Buffer.alloc(2 * TAR_BLOCK_LENGTH);

/**
 * The tar of one image as `docker save` writes it in the classic layout, with the layers that are to be sent:
 *
 *     <diff ID>.tar ..., <image ID>.json, manifest.json
 *
 * Each layer is a header, a file and padding. The config and the manifest are the tail: an engine makes no image of a
 * tar that is cut before it.
 */
export class ImageTar {
  readonly tail: Buffer;
  readonly #load: ImageLoad;

  constructor(load: ImageLoad) {
    this.#load = load;
    this.tail = createTail(load);
  }

  /** Bytes of the whole tar. */
  get length(): number {
    const layers = this.layers.map(({ file }) => TAR_BLOCK_LENGTH + paddedLength(file.length));
    return layers.reduce((total, length) => total + length, this.tail.length);
  }

  /** The layers that are sent, in their order in the tar. */
  get layers(): readonly ArchiveLayer[] {
    return this.#load.sentLayers;
  }

  header({ diffId, file }: ArchiveLayer): Buffer {
    return createTarHeader(layerPath(diffId), file.length);
  }

  padding({ file }: ArchiveLayer): Buffer {
    return paddingOf(file.length);
  }
}

function createTail({ configJson, id, tags, layers }: ImageLoad): Buffer {
  const configPath = `${hexOf(id)}.json`;
  const manifest = Buffer.from(
    JSON.stringify([{ Config: configPath, RepoTags: tags, Layers: layers.map(({ diffId }) => layerPath(diffId)) }]),
  );
  return Buffer.concat([...fileEntry(configPath, configJson), ...fileEntry('manifest.json', manifest), END_MARK]);
}

function fileEntry(name: string, content: Buffer): Buffer[] {
  return [createTarHeader(name, content.length), content, paddingOf(content.length)];
}

function paddingOf(length: number): Buffer {
  return Buffer.alloc(paddedLength(length) - length);
}

function layerPath(diffId: string): string {
  return `${hexOf(diffId)}.tar`;
}

function hexOf(digest: string): string {
  return digest.slice('sha256:'.length);
}
