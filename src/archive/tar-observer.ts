import { createHash, type Hash } from 'node:crypto';
import { archiveError } from './archive-error.ts';
import { digestInPath, MAX_MANIFEST_LENGTH, parseImageConfig, parseManifest } from './manifest.ts';
import { compressionOf, COMPRESSION_MAGIC_LENGTH, type Compression } from './compression.ts';
import { paddedLength, TAR_BLOCK_LENGTH, TarHeaderReader } from './tar-header.ts';
import { TarListing } from './tar-listing.ts';
import type { WantedImage } from './archive-images.ts';

interface ObservedFile {
  readonly sha256: string;
  readonly compression: Compression;
  /** Of small files that may be JSON. */
  readonly content: Buffer | undefined;
}

/** All contents that are kept, so that no archive exhausts the memory. */
const MAX_KEPT_LENGTH = 32 * 1024 * 1024;

/**
 * Looks at the tar of a `docker save` archive while it streams by, where it can't be read at random: what it holds, and
 * whether every layer matches its digest.
 */
export class TarObserver {
  readonly #headers = new TarHeaderReader();
  readonly #listing = new TarListing();
  readonly #files = new Map<number, ObservedFile>();
  #position = 0;
  #keptLength = 0;
  #zeros = 0;
  /** What is being read: its bytes until now, as far as they are needed in one piece. */
  #pending: Buffer = Buffer.alloc(0);
  #metadataLength: number | undefined;
  #file: { start: number; left: number; hash: Hash; kept: Buffer[] | undefined; first: Buffer } | undefined;
  #skip = 0;

  /** The end mark has begun: an engine that gets it takes the archive for whole. */
  get isEnding(): boolean {
    return this.#zeros > 0;
  }

  /** Takes the next bytes. @throws LoaderError `archive_invalid` */
  take(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0 && this.#zeros < 2) rest = this.#takeSome(rest);
  }

  /** The images that went by, all of whose layers are right. @throws LoaderError `archive_invalid` */
  end(): WantedImage[] {
    if (this.#zeros < 2) throw archiveError('it ends before its end mark: it is cut or not complete');
    const manifest = this.#listing.find('manifest.json');
    const json = manifest && this.#files.get(manifest.start)?.content;
    if (json === undefined) throw archiveError('it has no manifest.json: docker save writes one');
    const images = new Map<string, WantedImage>();
    for (const { configPath, tags, layerPaths } of parseManifest(json)) {
      const configJson = this.#observed(configPath).content;
      if (configJson === undefined) throw archiveError(`${configPath} in it is too long for an image config`);
      const { id, diffIds } = parseImageConfig(configJson, configPath);
      if (layerPaths.length !== diffIds.length) throw archiveError(`its manifest.json and ${configPath} disagree`);
      for (const [index, path] of layerPaths.entries()) this.#assertLayer(path, diffIds[index] ?? '');
      images.set(id, { id, tags: [...new Set([...(images.get(id)?.tags ?? []), ...tags])], diffIds });
    }
    return [...images.values()];
  }

  /** Consumes some bytes; answers the others. */
  #takeSome(bytes: Buffer): Buffer {
    if (this.#skip > 0) {
      const length = Math.min(this.#skip, bytes.length);
      this.#skip -= length;
      this.#position += length;
      return bytes.subarray(length);
    }
    if (this.#file !== undefined) return this.#takeData(bytes);
    const wanted = this.#metadataLength === undefined ? TAR_BLOCK_LENGTH : paddedLength(this.#metadataLength);
    const length = Math.min(wanted - this.#pending.length, bytes.length);
    this.#pending = Buffer.concat([this.#pending, bytes.subarray(0, length)]);
    this.#position += length;
    if (this.#pending.length === wanted) {
      const whole = this.#pending;
      this.#pending = Buffer.alloc(0);
      this.#takeWhole(whole);
    }
    return bytes.subarray(length);
  }

  #takeWhole(block: Buffer): void {
    if (this.#metadataLength !== undefined) {
      this.#headers.takeMetadata(block.subarray(0, this.#metadataLength));
      this.#metadataLength = undefined;
      return;
    }
    const step = this.#headers.take(block);
    this.#zeros = step.kind === 'zeros' ? this.#zeros + 1 : 0;
    if (step.kind === 'metadata') {
      this.#metadataLength = step.length;
    } else if (step.kind === 'entry') {
      const { entry } = step;
      this.#listing.add(entry, this.#position);
      const isSmall = entry.length <= MAX_MANIFEST_LENGTH;
      this.#file = {
        start: this.#position,
        left: entry.length,
        hash: createHash('sha256'),
        kept: isSmall ? [] : undefined,
        first: Buffer.alloc(0),
      };
      this.#endFileIfDone(entry.length);
    }
  }

  #takeData(bytes: Buffer): Buffer {
    const file = this.#file;
    if (file === undefined) return bytes;
    const data = bytes.subarray(0, file.left);
    file.hash.update(data);
    if (file.first.length < COMPRESSION_MAGIC_LENGTH) {
      file.first = Buffer.concat([file.first, data.subarray(0, COMPRESSION_MAGIC_LENGTH)]);
    }
    if (file.kept !== undefined) this.#keep(file.kept, data);
    file.left -= data.length;
    this.#position += data.length;
    this.#endFileIfDone(this.#position - file.start);
    return bytes.subarray(data.length);
  }

  /** Keeps what may be JSON, of which no byte is zero; of a layer, the first block has such. */
  #keep(kept: Buffer[], data: Buffer): void {
    if (data.includes(0)) {
      this.#keptLength -= kept.reduce((total, { length }) => total + length, 0);
      if (this.#file !== undefined) this.#file.kept = undefined;
      return;
    }
    this.#keptLength += data.length;
    if (this.#keptLength > MAX_KEPT_LENGTH) throw archiveError('its images are too many');
    kept.push(Buffer.from(data));
  }

  #endFileIfDone(length: number): void {
    const file = this.#file;
    if (file === undefined || file.left > 0) return;
    this.#files.set(file.start, {
      sha256: file.hash.digest('hex'),
      compression: compressionOf(file.first),
      content: file.kept === undefined ? undefined : Buffer.concat(file.kept),
    });
    this.#file = undefined;
    this.#skip = paddedLength(length) - length;
  }

  #observed(path: string): ObservedFile {
    const file = this.#files.get(this.#listing.file(path).start);
    if (file === undefined) throw archiveError(`its manifest names ${path}, which it does not hold`);
    return file;
  }

  #assertLayer(path: string, diffId: string): void {
    const { sha256, compression } = this.#observed(path);
    const promised = digestInPath(path);
    // Compressed and without a digest of its own, it is left to the engine, which checks the diff ID too.
    if (promised === undefined && compression !== 'none') return;
    if (sha256 === (promised ?? diffId.slice('sha256:'.length))) return;
    throw archiveError(`the layer ${diffId} does not match its digest; nothing of the archive was loaded`);
  }
}
