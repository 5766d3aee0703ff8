import { readArchiveIndex, type ArchiveImage, type ArchiveLayer } from './archive-index.ts';
import { ArchiveStream } from './archive-stream.ts';
import type { Compression } from './compression.ts';
import { LayerVerifier } from './layer-verifier.ts';
import { openArchive, type OpenArchive } from './open-archive.ts';

/** An image of an archive, whose layers are all right. */
export interface CheckedImage {
  /** `sha256:` and the digest of the config. */
  readonly id: string;
  readonly tags: readonly string[];
  /** Digests of the uncompressed layers. */
  readonly diffIds: readonly string[];
  /** These two are known where the archive can be read at random. */
  readonly platform: string | undefined;
  /** Of its layers, those that it shares with others included. */
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
 * Reads an archive as an unlock does, and every layer in it, but loads nothing.
 *
 * @throws LoaderError `archive_...`, or the reason of the signal
 */
export async function checkArchive(path: string, aesKey: Buffer, options: CheckOptions): Promise<CheckedArchive> {
  const archive = await openArchive(path, aesKey);
  try {
    const { compression, identity } = archive;
    const images = compression === 'none' ? await verifyTar(archive, options) : await verifyWhole(archive, options);
    return { compression, length: identity.length, images };
  } finally {
    await archive.close();
  }
}

async function verifyTar(archive: OpenArchive, options: CheckOptions): Promise<CheckedImage[]> {
  const images = await readArchiveIndex(archive.reader, options.signal);
  const layers = new Map<string, ArchiveLayer>();
  for (const layer of images.flatMap((image) => image.layers)) layers.set(`${layer.file.start} ${layer.diffId}`, layer);
  for (const layer of layers.values()) await verifyLayer(archive, layer, options);
  return images.map(({ config, tags, layers }) => ({
    id: config.id,
    tags,
    diffIds: config.diffIds,
    platform: platformOf(config),
    bytes: layers.reduce((total, { file }) => total + file.length, 0),
  }));
}

async function verifyLayer(archive: OpenArchive, layer: ArchiveLayer, { onBytes, signal }: CheckOptions) {
  const { start, length } = layer.file;
  const verifier = new LayerVerifier(layer);
  try {
    for await (const chunk of archive.reader.stream(start, start + length)) {
      signal.throwIfAborted();
      await verifier.take(chunk);
      onBytes(chunk.length);
    }
    await verifier.end();
  } finally {
    verifier.close();
  }
}

async function verifyWhole(archive: OpenArchive, options: CheckOptions): Promise<CheckedImage[]> {
  const whole = new ArchiveStream(archive);
  const chunks = whole.chunks({ ...options, onEnd: () => undefined });
  while ((await chunks.next()).done !== true);
  return whole.images.map(({ id, tags, diffIds }) => ({ id, tags, diffIds, platform: undefined, bytes: undefined }));
}

function platformOf({ os, architecture, variant }: ArchiveImage['config']): string {
  return [os, architecture, ...(variant === undefined ? [] : [variant])].join('/');
}
