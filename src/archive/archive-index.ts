import type { EnvelopeReader } from '../security/envelope-reader.ts';
import { archiveError } from './archive-error.ts';
import { nameImages, tooManyImages, type NamedImage, type NamedLayer } from './archive-images.ts';
import { compressionOf, COMPRESSION_MAGIC_LENGTH, type Compression } from './compression.ts';
import { MAX_CONFIG_LENGTH, MAX_MANIFEST_LENGTH, parseManifest, type ArchiveManifest } from './manifest.ts';
import { listTar, type ArchiveFile, type TarListing } from './tar-listing.ts';

/** A layer of an archive, and where its file lies in it. */
export interface ArchiveLayer extends Omit<NamedLayer, 'path'> {
  readonly file: ArchiveFile;
  readonly compression: Compression;
}

export interface ArchiveImage extends Omit<NamedImage, 'layers'> {
  /** From the lowest to the highest. */
  readonly layers: readonly ArchiveLayer[];
}

/** Of all images together, so that no archive exhausts the memory. */
const MAX_CONFIGS_LENGTH = 32 * 1024 * 1024;

/**
 * Reads what an archive holds that can be read at random, in the classic and the OCI layout of `docker save`: both have a
 * manifest.json.
 *
 * @throws LoaderError `archive_invalid`
 */
export async function readArchiveIndex(archive: EnvelopeReader, signal: AbortSignal): Promise<ArchiveImage[]> {
  const listing = await listTar(archive, signal);
  const manifestFile = listing.find('manifest.json');
  if (manifestFile === undefined) throw archiveError('it has no manifest.json: docker save writes one');
  const manifest = parseManifest(await readWhole(archive, manifestFile, 'manifest.json', MAX_MANIFEST_LENGTH));
  const layerFiles = new LayerFiles(archive, listing);
  const images: ArchiveImage[] = [];
  for (const image of nameImages(manifest, await readConfigs(archive, listing, manifest, signal))) {
    signal.throwIfAborted();
    images.push({ ...image, layers: await layerFiles.find(image.layers) });
  }
  return images;
}

async function readConfigs(
  archive: EnvelopeReader,
  listing: TarListing,
  manifest: ArchiveManifest,
  signal: AbortSignal,
): Promise<Buffer[]> {
  const configs: Buffer[] = [];
  let allLength = 0;
  for (const { configPath } of manifest) {
    signal.throwIfAborted();
    const config = await readWhole(archive, listing.file(configPath), configPath, MAX_CONFIG_LENGTH);
    allLength += config.length;
    if (allLength > MAX_CONFIGS_LENGTH) throw tooManyImages();
    configs.push(config);
  }
  return configs;
}

/** Finds the files of layers. It reads once, from the first bytes of each, how it is compressed. */
class LayerFiles {
  readonly #archive: EnvelopeReader;
  readonly #listing: TarListing;
  readonly #compressions = new Map<number, Compression>();

  constructor(archive: EnvelopeReader, listing: TarListing) {
    this.#archive = archive;
    this.#listing = listing;
  }

  async find(named: readonly NamedLayer[]): Promise<ArchiveLayer[]> {
    const layers: ArchiveLayer[] = [];
    for (const { path, ...layer } of named) {
      const file = this.#listing.file(path);
      layers.push({ ...layer, file, compression: await this.#compression(file) });
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
