import type { Patience } from '../async/outage.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import { toCutFileError } from '../cache/cache-error.ts';
import type { OpenCopy } from '../cache/copy-files.ts';
import { hasErrorCode, LoaderError } from '../errors.ts';
import { FILE_CHUNK_LENGTH, readFileChunks, readFully } from '../files/file-chunks.ts';
import type { WorkMemory } from '../files/work-memory.ts';
import type { Logger } from '../log/logger.ts';
import { bigPartFile, type ResourceName } from '../resource-name.ts';
import { PREFLIGHT_LENGTH } from '../security/envelope.ts';
import type { Session } from '../upstream/upstream.ts';
import type { CopyProofs, CopyToProve } from './copy-proofs.ts';
import { readDirectly } from './direct-read.ts';
import type { BigPartEnd, SmallPart } from './envelope-parts.ts';
import { PartPair } from './part-pair.ts';
import type { Follower, TransferSource } from './shared-transfer.ts';
import type { SharedTransfers } from './shared-transfers.ts';

/** The big part of an envelope at one of its two places. Dispose of it, whether it was read or not. */
export interface BigPart extends BigPartEnd, AsyncDisposable {
  /** The source of a copy for the cache; undefined where the cache has one. */
  readonly source: TransferSource | undefined;
  /** Yields all its bytes, once. */
  chunks(): AsyncGenerator<Buffer, void, undefined>;
}

export interface CachedBigPartOptions {
  readonly cache: BigPartCache;
  readonly proofs: CopyProofs;
  readonly logger: Logger;
}

/** Where to ask whether a copy is still of the version that the CDN has. */
export interface ProofSource {
  readonly cdn: CopyToProve['cdn'];
  readonly signal: AbortSignal;
}

/** The big part as the cache has it, in an open file. */
export class CachedBigPart implements BigPart {
  readonly source = undefined;
  readonly tail: Buffer;
  readonly #cache: BigPartCache;
  readonly #resource: ResourceName;
  readonly #copy: OpenCopy;

  private constructor(cache: BigPartCache, resource: ResourceName, copy: OpenCopy, tail: Buffer) {
    this.#cache = cache;
    this.#resource = resource;
    this.#copy = copy;
    this.tail = tail;
  }

  /**
   * Finds the copy that belongs to `small`, if there is one, and marks it as loaded. A copy that fails the preflight is
   * set aside.
   *
   * @throws the reason of the signal
   */
  static async find(
    resource: ResourceName,
    small: SmallPart,
    { cdn, signal }: ProofSource,
    { cache, proofs, logger }: CachedBigPartOptions,
  ): Promise<CachedBigPart | undefined> {
    const copy = await cache.open(resource);
    if (copy === undefined) return undefined;
    await using owned = new AsyncDisposableStack();
    owned.use(copy);
    if (copy.record !== undefined && copy.record.smallSha256 !== small.sha256) {
      logger.info({ resource }, 'The copy in the cache belongs to an earlier version');
      return undefined;
    }
    try {
      const part = new CachedBigPart(cache, resource, copy, await readTail(copy));
      small.plaintextLength(part);
      if (!(await proofs.mayBeUsed({ resource, copy, smallSha256: small.sha256, cdn }, signal))) return undefined;
      await cache.markLoaded(copy);
      owned.move();
      return part;
    } catch (error) {
      signal.throwIfAborted();
      // Another error, such as one of the disk, says nothing about the copy.
      if (hasErrorCode(error, 'envelope_invalid', 'cache_unusable')) await cache.setAside(resource, error, copy);
      else logger.warn({ err: error, resource }, 'The cache is not used for this load');
      return undefined;
    }
  }

  get length(): number {
    return this.#copy.length;
  }

  /** A copy that can't be read to its end is set aside, so that the next load does not meet it again. */
  async *chunks(): AsyncGenerator<Buffer, void, undefined> {
    try {
      yield* readFileChunks(this.#copy.handle, 0, this.#copy.length, FILE_CHUNK_LENGTH);
    } catch (error) {
      const failure = toCutFileError(error);
      await this.#cache.setAside(this.#resource, failure, this.#copy);
      throw failure;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#copy[Symbol.asyncDispose]();
  }
}

export interface RemoteBigPartOptions {
  readonly session: Pick<Session, 'api' | 'cdn'>;
  readonly transfers: SharedTransfers;
  /** Of what is read without the cache, together with all transfers. */
  readonly memory: WorkMemory;
  readonly patience: Patience;
  readonly signal: AbortSignal;
}

/**
 * The big part as the CDN has it. It is read through the cache, together with all callers who want the same version, and
 * straight from the CDN where the cache can't be written.
 */
export class RemoteBigPart implements BigPart {
  readonly source: TransferSource;
  readonly #options: RemoteBigPartOptions;
  #follower: Follower | undefined;

  private constructor(source: TransferSource, options: RemoteBigPartOptions) {
    this.source = source;
    this.#options = options;
  }

  /**
   * @throws LoaderError `upload_unfinished` when the object belongs to another small part; `resource_not_in_cdn`, or any
   * code that begins with `cdn_`
   */
  static async find(resource: ResourceName, small: SmallPart, options: RemoteBigPartOptions): Promise<RemoteBigPart> {
    const { session, signal, patience } = options;
    const { api, cdn } = session;
    const object = await cdn.openObject(resource.folder, bigPartFile(resource), PREFLIGHT_LENGTH, signal, patience);
    const { etag, length: bigLength, smallSha256 } = object;
    if (smallSha256 !== undefined && smallSha256 !== small.sha256) throw unfinishedUpload(resource);
    const isPair = smallSha256 !== undefined;
    const record = { bigLength, smallSha256: small.sha256, etag, isPair, madeAtMs: Date.now() };
    const pair = new PartPair(resource, record, api);
    return new RemoteBigPart({ cdn, object, resource, record, pair }, options);
  }

  get length(): number {
    return this.source.object.length;
  }

  get tail(): Buffer {
    return this.source.object.tail;
  }

  /** @throws LoaderError `cdn_object_changed` before the last bytes, where they are found to be of another version */
  async *chunks(): AsyncGenerator<Buffer, void, undefined> {
    let position = 0;
    for await (const chunk of this.#read()) {
      position += chunk.length;
      if (position === this.length) await this.source.pair.confirm(this.#options.signal);
      yield chunk;
    }
  }

  async *#read(): AsyncGenerator<Buffer, void, undefined> {
    const { transfers, signal, patience } = this.#options;
    this.#follower = transfers.join(this.source, signal, patience);
    let position = 0;
    try {
      for await (const chunk of this.#follower.chunks()) {
        yield chunk;
        position += chunk.length;
      }
      return;
    } catch (error) {
      if (!hasErrorCode(error, 'cache_unusable')) throw error;
    }
    await this[Symbol.asyncDispose](); // The transfer's file takes room on a disk that may be full.
    yield* readDirectly(this.source, position, this.#options);
  }

  /**
   * Leaves the transfer. The end of `chunks` is too early for that: it waits until the cache has its copy, and the client
   * must not wait for the disk.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#follower?.[Symbol.asyncDispose]();
  }
}

/** @throws LoaderError `cache_unusable` when the copy is shorter than it was; the system's error */
async function readTail({ handle, length }: OpenCopy): Promise<Buffer> {
  const start = Math.max(0, length - PREFLIGHT_LENGTH);
  try {
    return await readFully(handle, Buffer.alloc(length - start), start, length);
  } catch (error) {
    throw toCutFileError(error);
  }
}

function unfinishedUpload({ folder, name }: ResourceName): LoaderError {
  return new LoaderError(
    'upload_unfinished',
    `The two parts of ${folder}/${name} are of two versions, since an upload is under way or was broken off: load it ` +
      'again in a moment, and upload it again if that goes on.',
  );
}
