import { createHash } from 'node:crypto';
import type { Session } from '../upstream/session.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import type { OpenCopy } from '../cache/open-copy.ts';
import type { CdnObject, S3CdnManager } from '../cdn/s3-cdn-manager.ts';
import { hasErrorCode, LoaderError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { PREFLIGHT_LENGTH, preflightEnvelope } from '../security/envelope.ts';
import { decryptEnvelope } from '../security/envelope-cipher.ts';
import { EndOfFileError, FILE_CHUNK_LENGTH, readFileChunks } from '../files/file-chunks.ts';
import type { KeyedReadWriteLock } from '../async/keyed-read-write-lock.ts';
import { bigPartFile, resourceKey, smallPartFile, type ResourceName } from '../resource-name.ts';
import type { Follower } from './shared-transfer.ts';
import type { SharedTransfers } from './shared-transfers.ts';
import { joinedLength } from './envelope-parts.ts';

export interface DownloadServiceOptions {
  readonly upstream: Pick<Upstream, 'currentSession'>;
  readonly cache: BigPartCache;
  readonly transfers: SharedTransfers;
  readonly publicationLocks: KeyedReadWriteLock;
  readonly logger: Logger;
}

/** A resource that can be read: key and padding are proven, its length is known. Dispose of it, read or not. */
export interface OpenResource extends AsyncDisposable {
  /** Bytes of plaintext. */
  readonly length: number;
  /** The plaintext, once. It fails rather than end early. */
  readonly chunks: AsyncIterable<Buffer>;
}

/** What it takes to have a resource in the cache. No file is open for it. */
export interface PrefetchPlan {
  /** Bytes of the big part. */
  readonly length: number;
  /** Whether the cache has a copy that fits already. */
  readonly isCached: boolean;
  /**
   * Fetches it into the cache; `onBytes` is told how many of its bytes are stored, and must not take long. When it fails
   * or is aborted, nothing unfinished is left, on the disk or of connections. Nothing is done for what is cached.
   *
   * @throws LoaderError, or the signal's reason
   */
  run(signal: AbortSignal, onBytes: (bytesStored: number) => void): Promise<void>;
}

/** The big part of an envelope at one of its two places, before it is read. */
interface BigPart {
  readonly length: number;
  /** The last bytes, as many as the preflight needs or all there are. */
  readonly tail: Buffer;
  readonly isCached: boolean;
  read(): AsyncIterable<Buffer>;
  /** Sees to it that the cache has it, in place of `read`. */
  store(signal: AbortSignal, onBytes: (bytesStored: number) => void): Promise<void>;
  close(): Promise<void>;
}

/** An envelope whose end is proven. */
interface Envelope {
  readonly small: Buffer;
  readonly big: BigPart;
  readonly aesKey: Buffer;
  /** Bytes of plaintext. */
  readonly length: number;
}

/** Loads resources: small part from the API, big part from the cache or the CDN, joined and decrypted as they come. */
export class DownloadService {
  readonly #options: DownloadServiceOptions;

  constructor(options: DownloadServiceOptions) {
    this.#options = options;
  }

  /**
   * Opens a resource. All but the bytes in its middle is checked here, before the first one leaves.
   *
   * @throws LoaderError whose code tells what is missing or wrong
   */
  async open(resource: ResourceName, signal: AbortSignal): Promise<OpenResource> {
    // From before the cache is looked at, so that no eviction comes between that and the first byte.
    using holds = new DisposableStack();
    holds.use(this.#options.cache.hold(resource));
    const { small, big, aesKey, length } = await this.#find(resource, signal);
    const held = holds.move();
    return {
      length,
      chunks: decryptEnvelope(joinParts(small, big), aesKey),
      [Symbol.asyncDispose]: () => big.close().finally(() => held.dispose()),
    };
  }

  /**
   * Tells what is to be fetched so that a load finds the resource in the cache. It checks as much as `open` does, and a
   * copy that passes counts as loaded.
   *
   * @throws LoaderError whose code tells what is missing or wrong
   */
  async planPrefetch(resource: ResourceName, signal: AbortSignal): Promise<PrefetchPlan> {
    using _hold = this.#options.cache.hold(resource);
    const { big } = await this.#find(resource, signal);
    await big.close();
    return {
      length: big.length,
      isCached: big.isCached,
      run: (runSignal, onBytes) => big.store(runSignal, onBytes),
    };
  }

  async #find(resource: ResourceName, signal: AbortSignal): Promise<Envelope> {
    const { upstream, publicationLocks } = this.#options;
    const session = upstream.currentSession();
    const aesKey = session.resourceAesKey();
    using _lock = await publicationLocks.shared(resourceKey(resource), signal);
    const small = await session.api.fetchResource(resource.folder, smallPartFile(resource), signal);
    const cached = await this.#findCached(resource, small, aesKey);
    if (cached !== undefined) return cached;
    const big = await this.#findOnCdn(session, resource, small, signal);
    // While the CDN was asked, another's transfer may have ended.
    return (await this.#findCached(resource, small, aesKey)) ?? prove(big, small, aesKey);
  }

  /** The copy in the cache, if there is one that fits and passes; a bad one is set aside. */
  async #findCached(resource: ResourceName, small: Buffer, aesKey: Buffer): Promise<Envelope | undefined> {
    const { cache, logger } = this.#options;
    const copy = await cache.open(resource);
    if (copy === undefined) return undefined;
    if (copy.record !== undefined && copy.record.smallSha256 !== sha256(small)) {
      await copy.handle.close();
      logger.info({ resource }, 'The copy in the cache belongs to an earlier version');
      return undefined;
    }
    try {
      const big = await cachedBigPart(copy, () => cache.setAside(resource, undefined, copy));
      const envelope = prove(big, small, aesKey);
      await cache.markLoaded(copy);
      return envelope;
    } catch (error) {
      // Another error, such as one of the disk, says nothing about the copy.
      if (hasErrorCode(error, 'envelope_invalid', 'cache_unusable')) await cache.setAside(resource, error, copy);
      else logger.warn({ err: error, resource }, 'The cache is not used for this load');
      await copy.handle.close();
      return undefined;
    }
  }

  /** On the CDN: read through the cache, together with all who want the same, or past it when it can't be written. */
  async #findOnCdn(session: Session, resource: ResourceName, small: Buffer, signal: AbortSignal): Promise<BigPart> {
    const { cdn } = session;
    const object = await cdn.openObject(resource.folder, bigPartFile(resource), PREFLIGHT_LENGTH, signal);
    let follower: Follower | undefined;
    return {
      length: object.length,
      tail: object.tail,
      isCached: false,
      read: () => {
        follower = this.#joinTransfer(session, resource, object, small);
        return readFromCdn(cdn, object, follower, signal);
      },
      store: async (storeSignal, onBytes) => {
        using _hold = this.#options.cache.hold(resource);
        const storing = this.#joinTransfer(session, resource, object, small);
        try {
          await storing.stored(storeSignal, onBytes);
        } finally {
          await storing.leave();
        }
      },
      // Not at the last chunk: to leave is to wait until the cache has its copy, on the disk.
      close: async () => follower?.leave(),
    };
  }

  #joinTransfer(session: Session, resource: ResourceName, object: CdnObject, small: Buffer): Follower {
    const { cache, transfers, logger } = this.#options;
    const record = { bigLength: object.length, smallSha256: sha256(small) };
    return transfers.join(JSON.stringify([object.bucket, object.key, object.etag, record.smallSha256]), {
      cdn: session.cdn,
      object,
      createDraft: () => cache.createDraft(),
      publish: (file) => cache.publish(resource, file, record),
      logger,
    });
  }
}

async function* readFromCdn(
  cdn: S3CdnManager,
  object: CdnObject,
  follower: Follower,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  let position = 0;
  try {
    for await (const chunk of follower.chunks(signal)) {
      yield chunk;
      position += chunk.length;
    }
    return;
  } catch (error) {
    if (!hasErrorCode(error, 'cache_unusable')) throw error;
  }
  await follower.leave(); // Its file takes room on a disk that may be full.
  yield* cdn.readRange(object, position, object.length, signal);
}

/** @throws LoaderError `envelope_invalid` when the parts are not of one envelope, or of one under another key */
function prove(big: BigPart, small: Buffer, aesKey: Buffer): Envelope {
  const envelopeLength = joinedLength(small.length, big.length);
  const end = Buffer.concat([small, big.tail]).subarray(-PREFLIGHT_LENGTH);
  return { small, big, aesKey, length: preflightEnvelope(envelopeLength, end, aesKey) };
}

async function* joinParts(small: Buffer, big: BigPart): AsyncGenerator<Buffer, void, undefined> {
  yield small;
  yield* big.read();
}

/** `onUnreadable` is told when the copy turns out to be bad while it is read, for the sake of the next load. */
async function cachedBigPart(copy: OpenCopy, onUnreadable: () => Promise<void>): Promise<BigPart> {
  const tailStart = Math.max(0, copy.length - PREFLIGHT_LENGTH);
  const tail = Buffer.alloc(copy.length - tailStart);
  const { bytesRead } = await copy.handle.read(tail, 0, tail.length, tailStart);
  if (bytesRead < tail.length) throw cutCopy();
  return {
    length: copy.length,
    tail,
    isCached: true,
    async *read() {
      try {
        yield* readFileChunks(copy.handle, 0, copy.length, FILE_CHUNK_LENGTH);
      } catch (error) {
        await onUnreadable();
        throw error instanceof EndOfFileError ? cutCopy(error) : error;
      }
    },
    store: () => Promise.resolve(),
    close: () => copy.handle.close(),
  };
}

function cutCopy(cause?: unknown): LoaderError {
  return new LoaderError('cache_unusable', 'The copy in the cache was cut while it was read.', { cause });
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
