import { createHash } from 'node:crypto';
import type { EnvelopeReader } from '../security/envelope-reader.ts';
import { archiveError } from './archive-error.ts';
import {
  digestInPath,
  MAX_CONFIG_LENGTH,
  MAX_MANIFEST_LENGTH,
  parseImageConfig,
  parseManifest,
  type ImageConfig,
} from './manifest.ts';
import { compressionOf, COMPRESSION_MAGIC_LENGTH, type Compression } from './compression.ts';
import { listTar, type ArchiveFile, type TarListing } from './tar-listing.ts';

export interface ArchiveLayer {
  /** Digest of the uncompressed layer. */
  readonly diffId: string;
  /** Names this layer upon those below it, as the engine does: two layers are one only with the same below them. */
  readonly chainId: string;
  readonly file: ArchiveFile;
  readonly compression: Compression;
  /** SHA-256, hex, of the file as it is, where its path promises one. */
  readonly sha256: string | undefined;
}

export interface ArchiveImage {
  readonly config: ImageConfig;
  readonly configJson: Buffer;
  readonly tags: readonly string[];
  /** From the lowest to the highest. */
  readonly layers: readonly ArchiveLayer[];
}

/** All configs and layers together, so that no archive exhausts the memory. */
const MAX_CONFIGS_LENGTH = 32 * 1024 * 1024;
const MAX_LAYERS = 20_000;

/**
 * Reads what an archive holds, in the classic and the OCI layout of `docker save`: both have a manifest.json. An image
 * that is named twice is one with the tags of both.
 *
 * @throws LoaderError `archive_invalid`
 */
export async function readArchiveIndex(archive: EnvelopeReader, signal: AbortSignal): Promise<ArchiveImage[]> {
  const listing = await listTar(archive, signal);
  const manifestFile = listing.find('manifest.json');
  if (manifestFile === undefined) throw archiveError('it has no manifest.json: docker save writes one');
  const manifest = parseManifest(await readWhole(archive, manifestFile, 'manifest.json', MAX_MANIFEST_LENGTH));
  const layers = new LayerFiles(archive, listing);
  const images = new Map<string, ArchiveImage>();
  let configsLength = 0;
  let layerCount = 0;
  for (const { configPath, tags, layerPaths } of manifest) {
    signal.throwIfAborted();
    const configJson = await readWhole(archive, listing.file(configPath), configPath, MAX_CONFIG_LENGTH);
    const config = parseImageConfig(configJson, configPath);
    configsLength += configJson.length;
    layerCount += layerPaths.length;
    if (configsLength > MAX_CONFIGS_LENGTH || layerCount > MAX_LAYERS) throw archiveError('its images are too many');
    if (layerPaths.length !== config.diffIds.length) {
      throw archiveError(`its manifest.json and ${configPath} disagree about the number of layers`);
    }
    images.set(config.id, {
      config,
      configJson,
      tags: [...new Set([...(images.get(config.id)?.tags ?? []), ...tags])],
      layers: await layers.stack(config.diffIds, layerPaths),
    });
  }
  return [...images.values()];
}

/** Chain IDs of a stack of layers, from the lowest to the highest (OCI image-spec, config.md, Layer ChainID). */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    const digest = () => createHash('sha256').update(`${below} ${diffId}`).digest('hex');
    chain.push(below === undefined ? diffId : `sha256:${digest()}`);
  }
  return chain;
}

/** Finds the files of layers; how each is compressed is read from its first bytes, once. */
class LayerFiles {
  readonly #archive: EnvelopeReader;
  readonly #listing: TarListing;
  readonly #compressions = new Map<number, Compression>();

  constructor(archive: EnvelopeReader, listing: TarListing) {
    this.#archive = archive;
    this.#listing = listing;
  }

  async stack(diffIds: readonly string[], paths: readonly string[]): Promise<ArchiveLayer[]> {
    const chain = chainIds(diffIds);
    const layers: ArchiveLayer[] = [];
    for (const [index, path] of paths.entries()) {
      const file = this.#listing.file(path);
      layers.push({
        diffId: diffIds[index] ?? '',
        chainId: chain[index] ?? '',
        file,
        compression: await this.#compression(file),
        sha256: digestInPath(path),
      });
    }
    return layers;
  }

  async #compression({ start, length }: ArchiveFile): Promise<Compression> {
    const known = this.#compressions.get(start);
    if (known !== undefined) return known;
    if (start + length > this.#archive.plaintextLength) throw archiveError('a layer in it is cut');
    const magic = await this.#archive.read(start, start + Math.min(length, COMPRESSION_MAGIC_LENGTH));
    const compression = compressionOf(magic);
    this.#compressions.set(start, compression);
    return compression;
  }
}

async function readWhole(
  archive: EnvelopeReader,
  { start, length }: ArchiveFile,
  name: string,
  maxLength: number,
): Promise<Buffer> {
  if (length > maxLength) throw archiveError(`${name} in it has ${length} bytes; at most ${maxLength} are taken`);
  if (start + length > archive.plaintextLength) throw archiveError(`${name} in it is cut`);
  return await archive.read(start, start + length);
}
