import { readArchiveIndex, type ArchiveImage, type ArchiveLayer } from './archive-index.ts';
import { ArchiveStream } from './archive-stream.ts';
import type { Compression } from './compression.ts';
import { readLayer } from './layer-verifier.ts';
import type { ImageConfig } from './manifest.ts';
import { openArchive, type OpenArchive } from './open-archive.ts';
import type { WantedImage } from './archive-images.ts';

/** An image of an archive, all of whose layers are right. */
export interface CheckedImage extends WantedImage {
  /** Undefined where the archive can't be read at random; so is `bytes`. */
  readonly platform: string | undefined;
  /** The sum of its layers, including those that it shares with other images. */
  readonly bytes: number | undefined;
}

export interface CheckedArchive {
  /** Of the archive as a whole. */
  readonly compression: Compression;
  /** Bytes of the encrypted file. */
  readonly length: number;
  readonly images: readonly CheckedImage[];
}

export interface CheckOptions {
  readonly onBytes: (length: number) => void;
  readonly signal: AbortSignal;
}

/**
 * Reads and verifies an archive and every layer in it, as an unlock does, but loads nothing.
 *
 * @throws LoaderError `archive_...`, or the reason of the signal
 */
export async function checkArchive(path: string, aesKey: Buffer, options: CheckOptions): Promise<CheckedArchive> {
  await using archive = await openArchive(path, aesKey);
  const { compression, identity } = archive;
  try {
    const images = compression === 'none' ? await checkTar(archive, options) : await checkStream(archive, options);
    return { compression, length: identity.length, images };
  } catch (error) {
    throw await archive.explain(error);
  }
}

async function checkTar({ reader }: OpenArchive, { onBytes, signal }: CheckOptions): Promise<CheckedImage[]> {
  const images = await readArchiveIndex(reader, signal);
  const layers = new Map<string, ArchiveLayer>();
  for (const layer of images.flatMap((image) => image.layers)) layers.set(`${layer.file.start} ${layer.diffId}`, layer);
  for (const layer of layers.values()) {
    for await (const chunk of readLayer(reader, layer)) {
      signal.throwIfAborted();
      onBytes(chunk.length);
    }
  }
  return images.map(toCheckedImage);
}

async function checkStream(archive: OpenArchive, { onBytes, signal }: CheckOptions): Promise<CheckedImage[]> {
  const stream = new ArchiveStream(archive);
  const chunks = stream.body(signal);
  for (let told = 0, isEnded = false; !isEnded; told = stream.bytesRead) {
    isEnded = (await chunks.next()).done === true;
    onBytes(stream.bytesRead - told);
  }
  return stream.images.map((image) => ({ ...image, platform: undefined, bytes: undefined }));
}

function toCheckedImage({ config, tags, layers }: ArchiveImage): CheckedImage {
  return {
    id: config.id,
    tags,
    diffIds: config.diffIds,
    platform: platformOf(config),
    bytes: layers.reduce((total, { file }) => total + file.length, 0),
  };
}

function platformOf({ os, architecture, variant }: ImageConfig): string {
  return [os, architecture, ...(variant === undefined ? [] : [variant])].join('/');
}
