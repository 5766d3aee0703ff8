import { createHash, randomBytes } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { encryptEnvelope } from '../src/security/envelope-cipher.ts';
import { deriveArchiveAesKey } from '../src/security/key-derivation.ts';
import { TAR_END, tarEntry } from '../lab/images/tar-entry.ts';
import { MachineFiles } from './machine-files.ts';
import { sha256 } from '../lab/sha256.ts';

export const IMAGE_COUNT = 7;
/** The share of the base: an archive has a base of 720 MB below seven layers of 150 MB each, 1770 MB in all. */
const BASE_SHARE = 720 / 1770;
/** Larger files are in no layer: they would make the engine's work easier than that of real images is. */
const MAX_FILE_LENGTH = 60_000_000;
const CREATED = '2024-01-01T00:00:00Z';
const READ_LENGTH = 1024 * 1024;

/** An archive of images over one base, in the classic layout of `docker save`: as it is, and encrypted. */
export interface ImageArchive {
  readonly tarPath: string;
  /** IV and ciphertext: what IMAGES_PATH names. */
  readonly envelopePath: string;
  /** Bytes of the tar. */
  readonly length: number;
  /** Sorted, as the engine's are compared with them. */
  readonly imageIds: readonly string[];
  readonly keyHex: string;
  readonly ivHex: string;
}

export interface ImageArchiveOptions {
  /** The folder of its two files. */
  readonly folder: string;
  /** About so many bytes. */
  readonly length: number;
  readonly keyFragment: Buffer;
  readonly signal: AbortSignal;
}

interface Layer {
  readonly path: string;
  readonly diffId: string;
}

/** Makes both files, synced, without ever having more than one file of a layer in memory. */
export async function makeImageArchive(options: ImageArchiveOptions): Promise<ImageArchive> {
  const { folder, length, keyFragment, signal } = options;
  await mkdir(folder, { recursive: true });
  const tarPath = path.join(folder, 'images.tar');
  const envelopePath = path.join(folder, 'images.enc');
  const tar = new ArchiveTar(length);
  await pipeline(tar.chunks(), createWriteStream(tarPath), { signal });
  await tar.mendHeaders(tarPath);
  const aesKey = deriveArchiveAesKey(keyFragment);
  const iv = randomBytes(16);
  await pipeline(
    encryptEnvelope(createReadStream(tarPath, { highWaterMark: READ_LENGTH }), aesKey, iv),
    createWriteStream(envelopePath, { flush: true }),
    { signal },
  );
  return {
    tarPath,
    envelopePath,
    length: tar.length,
    imageIds: tar.imageIds.toSorted(),
    keyHex: aesKey.toString('hex'),
    ivHex: iv.toString('hex'),
  };
}

class ArchiveTar {
  readonly imageIds: string[] = [];
  readonly #length: number;
  readonly #files = new MachineFiles();
  /** Headers of layers, by where they stand: their sizes and checksums are known when the layers are written. */
  readonly #lateHeaders = new Map<number, Buffer>();
  #position = 0;

  /** @param length about so many bytes */
  constructor(length: number) {
    this.#length = length;
  }

  /** Bytes until now. */
  get length(): number {
    return this.#position;
  }

  /** The archive; `mendHeaders` must follow. */
  async *chunks(): AsyncGenerator<Buffer, void, undefined> {
    for await (const chunk of this.#parts()) {
      this.#position += chunk.length;
      yield chunk;
    }
  }

  async mendHeaders(tarPath: string): Promise<void> {
    const file = await open(tarPath, 'r+');
    try {
      for (const [position, header] of this.#lateHeaders) await file.write(header, 0, header.length, position);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async *#parts(): AsyncGenerator<Buffer, void, undefined> {
    const base = yield* this.#layer('base', this.#length * BASE_SHARE);
    const manifest: object[] = [];
    for (let number = 1; number <= IMAGE_COUNT; number++) {
      const own = yield* this.#layer(`service ${number}`, (this.#length * (1 - BASE_SHARE)) / IMAGE_COUNT);
      const config = imageConfig(number, [base, own]);
      const hex = sha256(config);
      this.imageIds.push(`sha256:${hex}`);
      manifest.push({
        Config: `${hex}.json`,
        RepoTags: [`azaion-bench/service-${number}:latest`],
        Layers: [base.path, own.path],
      });
      yield tarEntry({ name: `${hex}.json`, content: config });
    }
    yield tarEntry({ name: 'manifest.json', content: `${JSON.stringify(manifest)}\n` });
    yield TAR_END;
  }

  /** A layer of about `length` bytes of this machine's files. Returns it when it is written. */
  async *#layer(title: string, length: number): AsyncGenerator<Buffer, Layer, undefined> {
    const folder = sha256(title);
    const layerPath = `${folder}/layer.tar`;
    yield tarEntry({ name: `${folder}/`, type: 'directory' });
    yield tarEntry({ name: `${folder}/VERSION`, content: '1.0' });
    const headerAt = this.#position;
    yield tarEntry({ name: layerPath });
    const start = this.#position;
    const hash = createHash('sha256');
    for await (const chunk of this.#layerChunks(length)) {
      hash.update(chunk);
      yield chunk;
    }
    this.#lateHeaders.set(headerAt, tarEntry({ name: layerPath, claimedSize: this.#position - start }));
    return { path: layerPath, diffId: `sha256:${hash.digest('hex')}` };
  }

  async *#layerChunks(length: number): AsyncGenerator<Buffer, void, undefined> {
    // No file makes up a large part of a layer, nor takes it far beyond its length.
    const maxLength = Math.min(MAX_FILE_LENGTH, length / 8);
    for (let written = 0; written < length;) {
      const { name, content } = await this.#files.next(maxLength);
      const entry = tarEntry({ name, content, nameStyle: Buffer.byteLength(name) > 100 ? 'gnu' : 'ustar' });
      written += entry.length;
      yield entry;
    }
    yield TAR_END;
  }
}

function imageConfig(number: number, layers: readonly Layer[]): string {
  return JSON.stringify({
    architecture: 'amd64',
    config: { Labels: { service: String(number) } },
    created: CREATED,
    history: layers.map(({ path: layerPath }) => ({ created: CREATED, created_by: layerPath })),
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
  });
}
