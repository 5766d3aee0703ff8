import type { BigPartCache } from '../cache/big-part-cache.ts';
import { toCutFileError } from '../cache/cache-error.ts';
import type { OpenCopy } from '../cache/copy-files.ts';
import { recordOfManifest, type CopyRecord } from '../cache/copy-record.ts';
import { hasErrorCode } from '../errors.ts';
import { readFully } from '../files/file-chunks.ts';
import type { Manifest } from '../manifest/manifest.ts';
import type { ResourceName } from '../resource-name.ts';
import { PREFLIGHT_LENGTH } from '../security/envelope.ts';
import type { BigPart, BigPartReading } from './big-part.ts';
import { ChunkMender } from './chunk-mender.ts';
import type { CopyProofs } from './copy-proofs.ts';
import { undecryptable, type SmallPart } from './envelope-parts.ts';
import { PlaintextReader, type PlaintextRange } from './plaintext-reader.ts';
import type { ResourceManifests } from './resource-manifests.ts';

export interface CachedBigPartOptions extends BigPartReading {
  readonly cache: BigPartCache;
  readonly proofs: CopyProofs;
  readonly manifests: ResourceManifests;
}

/** The big part as the cache has it, in an open file. */
export class CachedBigPart implements BigPart {
  readonly source = undefined;
  readonly manifest: Manifest | undefined;
  /** Undefined where the manifest tells what it would: it is read with the first byte then. */
  readonly #tail: Buffer | undefined;
  readonly #resource: ResourceName;
  readonly #copy: OpenCopy;
  readonly #options: CachedBigPartOptions;

  private constructor(copy: OpenCopy, tail: Buffer | undefined, subject: CachedSubject) {
    this.#copy = copy;
    this.#tail = tail;
    this.#resource = subject.resource;
    this.manifest = subject.manifest;
    this.#options = subject.options;
  }

  /**
   * Finds the copy that belongs to `small`, if there is one that may be used without asking the CDN, and marks it as loaded.
   *
   * @throws the reason of the signal
   */
  static async find(
    resource: ResourceName,
    small: SmallPart,
    options: CachedBigPartOptions,
  ): Promise<CachedBigPart | undefined> {
    const { cache, proofs, manifests, logger, session, signal } = options;
    await using owned = new AsyncDisposableStack();
    const copy = await cache.open(resource);
    if (copy === undefined) return undefined;
    owned.use(copy);
    if (copy.record?.smallSha256 !== undefined && copy.record.smallSha256 !== small.sha256) {
      logger.info({ resource }, 'The copy in the cache belongs to an earlier version');
      return undefined;
    }
    const manifest = await acceptedManifest(resource, copy.record, options);
    if (manifest === undefined && (manifests.isRequired || copy.record?.manifest !== undefined)) return undefined;
    if (manifest === undefined) {
      const subject = { resource, copy, smallSha256: small.sha256, cdn: session.cdn };
      if (!(await proofs.mayBeUsed(subject, signal))) return undefined;
    }
    const part = await CachedBigPart.#open(copy, small, { resource, manifest, options });
    if (part !== undefined) owned.move();
    return part;
  }

  /**
   * Takes a copy for the version that a manifest tells: the cache has it from a time before the manifest. What of it does
   * not fit is fetched when it is read. Undefined where there is none that may be of that version.
   */
  static async adopt(
    resource: ResourceName,
    small: SmallPart,
    { manifest, sealed }: { readonly manifest: Manifest; readonly sealed: Buffer },
    options: CachedBigPartOptions,
  ): Promise<CachedBigPart | undefined> {
    const { cache, pool } = options;
    await using owned = new AsyncDisposableStack();
    const copy = await cache.open(resource);
    if (copy === undefined) return undefined;
    owned.use(copy);
    const {
      small: { sha256 },
      big,
    } = manifest;
    const isOther = copy.record?.smallSha256 !== undefined && copy.record.smallSha256 !== sha256;
    if (isOther || copy.length !== big.length) return undefined;
    const first = { fd: copy.handle.fd, position: 0, length: Math.min(big.chunkLength, big.length) };
    if (big.length > 0 && (await pool.digest(first).catch(() => undefined)) !== big.chunkSha256[0]) return undefined;
    const record = recordOfManifest(manifest, sealed);
    await cache.replaceRecord(resource, copy, record);
    const adopted = { ...copy, record, [Symbol.asyncDispose]: () => copy[Symbol.asyncDispose]() };
    const part = await CachedBigPart.#open(adopted, small, { resource, manifest, options });
    if (part !== undefined) owned.move();
    return part;
  }

  /** Proves key and end. A copy that fails is set aside, unless its digests tell what is wrong. */
  static async #open(copy: OpenCopy, small: SmallPart, subject: CachedSubject): Promise<CachedBigPart | undefined> {
    const { resource, options } = subject;
    const { cache, logger, signal } = options;
    try {
      const tail = subject.manifest === undefined ? await readTail(copy, subject) : undefined;
      const part = new CachedBigPart(copy, tail, subject);
      part.plaintextLength(small);
      await cache.markLoaded(copy);
      return part;
    } catch (error) {
      signal.throwIfAborted();
      // The end was verified, so the key is another one.
      if (hasErrorCode(error, 'envelope_invalid') && copy.record?.chunks !== undefined) throw error;
      // Another error, such as one of the disk, says nothing about the copy.
      if (hasErrorCode(error, 'envelope_invalid', 'cache_unusable')) await cache.setAside(resource, error, copy);
      else logger.warn({ err: error, resource }, 'The cache is not used for this load');
      return undefined;
    }
  }

  get length(): number {
    return this.#copy.length;
  }

  plaintextLength(small: SmallPart): number {
    if (this.#tail !== undefined) return small.plaintextLength({ length: this.length, tail: this.#tail });
    return this.manifest?.length ?? 0;
  }

  /** A copy without digests that can't be read to its end is set aside, so that the next load does not meet it again. */
  async *plaintext(small: SmallPart, range: PlaintextRange): AsyncGenerator<Buffer, void, undefined> {
    const { handle, length, record } = this.#copy;
    const subject = { resource: this.#resource, manifest: this.manifest, options: this.#options };
    if (this.manifest !== undefined) await this.#prove(small, this.manifest, subject);
    const mender = menderOf(this.#copy, subject);
    const file = {
      handle,
      length,
      chunks: record?.chunks,
      mend: (index: number, reason: Error) => mender.mend(index, reason),
    };
    try {
      yield* new PlaintextReader(file, small, this.#options).read(range);
    } catch (error) {
      const failure = toCutFileError(error);
      if (record?.chunks === undefined) await this.#options.cache.setAside(this.#resource, failure, this.#copy);
      throw failure;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#copy[Symbol.asyncDispose]();
  }

  /**
   * Proves the key by the end of the copy. An end that tells the length of the manifest needs no digest here: its chunk is
   * verified when it is read. Only where it does not, damage is told from another key.
   *
   * @throws LoaderError `envelope_invalid` for another key; of `ChunkMender`
   */
  async #prove(small: SmallPart, manifest: Manifest, subject: CachedSubject): Promise<void> {
    const { length } = this.#copy;
    const isProven = (tail: Buffer) => small.plaintextLength({ length, tail }) === manifest.length;
    try {
      if (isProven(await readEnd(this.#copy))) return;
    } catch (error) {
      if (!hasErrorCode(error, 'envelope_invalid', 'cache_unusable')) throw error;
    }
    // One wrong key in 256 gives a valid padding by chance, and seldom that of the right length.
    if (!isProven(await readTail(this.#copy, subject))) throw undecryptable();
  }
}

interface CachedSubject {
  readonly resource: ResourceName;
  readonly manifest: Manifest | undefined;
  readonly options: CachedBigPartOptions;
}

/** The manifest that a copy has, if it is one that counts here and now. */
async function acceptedManifest(
  resource: ResourceName,
  record: CopyRecord | undefined,
  { manifests, session, logger }: CachedBigPartOptions,
): Promise<Manifest | undefined> {
  if (record?.manifest === undefined) return undefined;
  try {
    const { manifest, payloadSha256 } = manifests.open(record.manifest, resource, session.resourceAesKey());
    await manifests.revisions.accept(resource, { revision: manifest.revision, payloadSha256 });
    return manifest;
  } catch (error) {
    if (!hasErrorCode(error, 'manifest_invalid', 'manifest_outdated')) throw error;
    logger.warn({ err: error, resource }, 'The manifest of a copy in the cache does not count any more');
    return undefined;
  }
}

/** What mends a copy that is open. */
export function menderOf(
  copy: OpenCopy,
  { resource, options }: Pick<CachedSubject, 'options' | 'resource'>,
): ChunkMender {
  const { cache, session, memory, patience, signal, logger } = options;
  const record = copy.record ?? { bigLength: copy.length, smallSha256: undefined };
  const writeBack = (bytes: Buffer, position: number) => cache.writeBack(resource, copy, bytes, position);
  return new ChunkMender({ resource, record, cdn: session.cdn, memory, patience, signal, logger, writeBack });
}

/**
 * The last bytes of a copy. Where its digests are known, these bytes are right: the last chunk is mended if need be.
 *
 * @throws LoaderError `cache_unusable` when the copy is shorter than it was; of the CDN; the system's error
 */
async function readTail(copy: OpenCopy, subject: CachedSubject): Promise<Buffer> {
  const { handle, length, record } = copy;
  const start = Math.max(0, length - PREFLIGHT_LENGTH);
  const { chunkLength, chunkSha256 } = record?.chunks ?? { chunkLength: 1, chunkSha256: [] };
  // The last bytes may lie in two chunks.
  const first = Math.floor(start / chunkLength);
  for (let index = first; index < chunkSha256.length; index++) {
    const position = index * chunkLength;
    const place = { fd: handle.fd, position, length: Math.min(chunkLength, length - position) };
    const present = await subject.options.pool.digest(place).catch(() => undefined);
    if (present !== chunkSha256[index]) {
      await menderOf(copy, subject).mend(index, new Error(`chunk ${index} is damaged`));
    }
  }
  return await readEnd(copy);
}

/** The last bytes of a copy, as they are. @throws LoaderError `cache_unusable` when it ends before; the system's error */
async function readEnd({ handle, length }: OpenCopy): Promise<Buffer> {
  const start = Math.max(0, length - PREFLIGHT_LENGTH);
  try {
    return await readFully(handle, Buffer.alloc(length - start), start, length);
  } catch (error) {
    throw toCutFileError(error);
  }
}
