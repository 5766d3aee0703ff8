import type { EnvelopeReader } from '../security/envelope-reader.ts';
import { archiveError } from './archive-error.ts';
import { nameImages, tooManyImages, type NamedImage, type NamedLayer } from './archive-images.ts';
import { compressionOf, COMPRESSION_MAGIC_LENGTH, type Compression } from './compression.ts';
import { MAX_CONFIG_LENGTH, MAX_MANIFEST_LENGTH, parseManifest, type ArchiveManifest } from './manifest.ts';
import { tarGrammar } from './tar-grammar.ts';
import { TarListing, type ArchiveFile } from './tar-listing.ts';

/** A layer of an archive, and where its file lies in it. */
export interface ArchiveLayer extends Omit<NamedLayer, 'path'> {
  readonly file: ArchiveFile;
  readonly compression: Compression;
}

export interface ArchiveImage extends Omit<NamedImage, 'layers'> {
  /** From the lowest to the highest. */
  readonly layers: readonly ArchiveLayer[];
}

/** For all images together, so that no archive exhausts the memory. */
const MAX_CONFIGS_LENGTH = 32 * 1024 * 1024;
/** Headers of small files lie near each other, so one read finds several. */
const WINDOW_LENGTH = 16 * 1024;
const NOTHING = Buffer.alloc(0);

/**
 * Finds the images of an uncompressed archive, in the classic or the OCI layout of `docker save`. Both have a
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

/**
 * Lists an uncompressed tar. It reads the headers, and skips the data between them.
 *
 * @throws LoaderError `archive_invalid` for one that is broken or cut
 */
export async function listTar(archive: EnvelopeReader, signal: AbortSignal): Promise<TarListing> {
  const listing = new TarListing();
  const window = new ReadWindow(archive);
  const grammar = tarGrammar();
  let position = 0;
  for (let step = grammar.next(); step.done !== true;) {
    signal.throwIfAborted();
    const request = step.value;
    if (request.kind === 'data') listing.add(request.entry, position);
    const bytes = request.kind === 'read' ? await window.read(position, request.length) : NOTHING;
    position += request.length;
    step = grammar.next(bytes);
  }
  return listing;
}

/** Reads small pieces in ascending order, several with one read of the file. */
class ReadWindow {
  readonly #archive: EnvelopeReader;
  #start = 0;
  #bytes: Buffer = NOTHING;

  constructor(archive: EnvelopeReader) {
    this.#archive = archive;
  }

  async read(start: number, length: number): Promise<Buffer> {
    const end = start + length;
    const total = this.#archive.plaintextLength;
    if (end > total) throw archiveError('it ends before its end mark: it is cut or not complete');
    if (start < this.#start || end > this.#start + this.#bytes.length) {
      this.#bytes = await this.#archive.read(start, Math.min(total, start + Math.max(length, WINDOW_LENGTH)));
      this.#start = start;
    }
    return this.#bytes.subarray(start - this.#start, end - this.#start);
  }
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

/** Finds the files of layers. It reads the first bytes of each file once, which tell how the file is compressed. */
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
  if (length > maxLength) throw archiveError(`${name} in it has ${length} bytes; at most ${maxLength} are allowed`);
  if (start + length > archive.plaintextLength) throw archiveError(`${name} in it is cut`);
  return await archive.read(start, start + length);
}
