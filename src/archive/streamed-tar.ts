import { createHash, type Hash } from 'node:crypto';
import { archiveError } from './archive-error.ts';
import {
  layerDigest,
  nameImages,
  tooManyImages,
  toWantedImage,
  type NamedLayer,
  type WantedImage,
} from './archive-images.ts';
import { compressionOf, COMPRESSION_MAGIC_LENGTH, type Compression } from './compression.ts';
import { MAX_MANIFEST_LENGTH, parseManifest } from './manifest.ts';
import { tarGrammar, type TarRequest } from './tar-grammar.ts';
import { TarListing } from './tar-listing.ts';

/** For all files that may be JSON together, so that no archive exhausts the memory. */
const MAX_KEPT_LENGTH = 32 * 1024 * 1024;
const NOTHING = Buffer.alloc(0);

/**
 * Finds out what a tar holds while it streams by, and whether every layer matches its digest. It feeds the bytes to the
 * grammar as they come.
 */
export class StreamedTar {
  readonly #grammar = tarGrammar();
  readonly #listing = new TarListing();
  readonly #files = new Map<number, FileFacts>();
  #keptLength = 0;
  #position = 0;
  /** Undefined after the end mark. */
  #request: TarRequest | undefined;
  /** Bytes of the request that are still to come. */
  #left = 0;
  /** The bytes of a `read` so far. */
  #pending: Buffer[] = [];
  #file: StreamedFile | undefined;

  constructor() {
    this.#ask(NOTHING);
  }

  /** Whether the end mark has begun. An engine that gets it considers the archive complete. */
  get isEnding(): boolean {
    return this.#request === undefined || (this.#request.kind === 'read' && this.#request.isEnding);
  }

  /** Takes the next bytes. The caller may release them afterwards. @throws LoaderError `archive_invalid` */
  take(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0 && this.#request !== undefined) {
      const bytes = rest.subarray(0, this.#left);
      rest = rest.subarray(bytes.length);
      this.#position += bytes.length;
      this.#left -= bytes.length;
      if (this.#request.kind === 'read') this.#pending.push(Buffer.from(bytes));
      else if (this.#file !== undefined) this.#keptLength += this.#file.take(bytes);
      if (this.#keptLength > MAX_KEPT_LENGTH) throw tooManyImages();
      if (this.#left === 0) this.#endRequest();
    }
  }

  /** The images of the tar, when all of their layers are right. @throws LoaderError `archive_invalid` */
  images(): WantedImage[] {
    if (this.#request !== undefined) throw archiveError('it ends before its end mark: it is cut or not complete');
    const manifestFile = this.#listing.find('manifest.json');
    const json = manifestFile && this.#files.get(manifestFile.start)?.content;
    if (json === undefined) throw archiveError('it has no manifest.json: docker save writes one');
    const manifest = parseManifest(json);
    const images = nameImages(
      manifest,
      manifest.map(({ configPath }) => this.#config(configPath)),
    );
    for (const layer of images.flatMap(({ layers }) => layers)) this.#assertLayer(layer);
    return images.map(toWantedImage);
  }

  /** Asks the grammar for the requests that follow, until one has bytes to come. */
  #ask(answer: Buffer): void {
    let step = this.#grammar.next(answer);
    for (; step.done !== true; step = this.#grammar.next(NOTHING)) {
      const request = step.value;
      this.#request = request;
      this.#left = request.length;
      if (request.kind === 'data') {
        this.#listing.add(request.entry, this.#position);
        this.#file = new StreamedFile(this.#position, request.length);
      }
      if (request.length > 0) return;
      this.#endFile();
    }
    this.#request = undefined;
  }

  #endRequest(): void {
    this.#endFile();
    const [only = NOTHING, ...others] = this.#pending;
    this.#pending = [];
    this.#ask(others.length === 0 ? only : Buffer.concat([only, ...others]));
  }

  #endFile(): void {
    if (this.#file === undefined) return;
    this.#files.set(this.#file.start, this.#file.end());
    this.#file = undefined;
  }

  #config(path: string): Buffer {
    const { content } = this.#facts(path);
    if (content === undefined) throw archiveError(`${path} in it is too long for an image config`);
    return content;
  }

  #facts(path: string): FileFacts {
    const facts = this.#files.get(this.#listing.file(path).start);
    if (facts === undefined) throw archiveError(`its manifest names ${path}, which it does not hold`);
    return facts;
  }

  #assertLayer(layer: NamedLayer): void {
    const { sha256, compression } = this.#facts(layer.path);
    const digest = layerDigest(layer, compression);
    // The engine checks the digest of what a file decompresses to.
    if (digest.of === 'content' || digest.hex === sha256) return;
    throw archiveError(`the layer ${layer.diffId} does not match its digest; nothing of the archive was loaded`);
  }
}

interface FileFacts {
  readonly sha256: string;
  readonly compression: Compression;
  /** Undefined for a file that is large or can't be JSON. */
  readonly content: Buffer | undefined;
}

/** A file of a tar while it streams by. */
class StreamedFile {
  readonly start: number;
  readonly #hash: Hash = createHash('sha256');
  #first: Buffer = NOTHING;
  /** Undefined once the file is known not to be JSON. */
  #kept: Buffer[] | undefined;

  constructor(start: number, length: number) {
    this.start = start;
    this.#kept = length <= MAX_MANIFEST_LENGTH ? [] : undefined;
  }

  /** Takes the next bytes, and returns how many more of them are kept in memory. */
  take(bytes: Buffer): number {
    this.#hash.update(bytes);
    if (this.#first.length < COMPRESSION_MAGIC_LENGTH) {
      this.#first = Buffer.concat([this.#first, bytes.subarray(0, COMPRESSION_MAGIC_LENGTH)]);
    }
    if (this.#kept === undefined) return 0;
    // JSON has no zero bytes; the first block of a layer has some.
    if (bytes.includes(0)) {
      const dropped = this.#kept.reduce((total, { length }) => total + length, 0);
      this.#kept = undefined;
      return -dropped;
    }
    this.#kept.push(Buffer.from(bytes));
    return bytes.length;
  }

  end(): FileFacts {
    return {
      sha256: this.#hash.digest('hex'),
      compression: compressionOf(this.#first),
      content: this.#kept === undefined ? undefined : Buffer.concat(this.#kept),
    };
  }
}
