import type { KeyedReadWriteLock } from '../async/keyed-read-write-lock.ts';
import { NO_PATIENCE, Outage, type Patience } from '../async/outage.ts';
import { RetryCounter } from '../async/retry.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import { hasErrorCode } from '../errors.ts';
import type { WorkMemory } from '../files/work-memory.ts';
import type { Logger } from '../log/logger.ts';
import { assertStorable, resourceKey, smallPartFile, type ResourceName } from '../resource-name.ts';
import type { Session } from '../upstream/upstream.ts';
import { CachedBigPart, RemoteBigPart, type BigPart } from './big-part.ts';
import type { CopyProofs } from './copy-proofs.ts';
import { SmallPart } from './envelope-parts.ts';
import { Prefetch } from './prefetch.ts';
import type { SharedTransfers } from './shared-transfers.ts';

export interface DownloadServiceOptions {
  readonly upstream: { session(signal: AbortSignal): Promise<Pick<Session, 'api' | 'cdn' | 'resourceAesKey'>> };
  readonly cache: BigPartCache;
  readonly proofs: CopyProofs;
  readonly transfers: SharedTransfers;
  /** Of what is read without the cache; the transfers have their shares of it. */
  readonly memory: WorkMemory;
  readonly publicationLocks: KeyedReadWriteLock;
  /** For loads. */
  readonly patience: Patience;
  readonly logger: Logger;
}

/** A resource that can be read: key and padding are proven, its length is known. Dispose of it, read or not. */
export interface OpenResource extends AsyncDisposable {
  /** Bytes of plaintext. */
  readonly length: number;
  /** Where its big part comes from. */
  readonly source: 'cache' | 'cdn';
  /** The plaintext, once. It fails rather than end early. */
  readonly chunks: AsyncIterable<Buffer>;
}

interface Parts {
  readonly small: SmallPart;
  readonly big: BigPart;
}

/** How long an upload of another device may take between its two parts: about four seconds. */
const UNFINISHED_POLICY = {
  attempts: 6,
  baseDelayMs: 250,
  isRetryable: (error: unknown) => hasErrorCode(error, 'upload_unfinished'),
};

/** Loads resources: small part from the API, big part from the cache or the CDN, joined and decrypted as they come. */
export class DownloadService {
  readonly #options: DownloadServiceOptions;

  constructor(options: DownloadServiceOptions) {
    this.#options = options;
  }

  /**
   * Opens a resource. All but the bytes in its middle is checked before the first byte leaves.
   *
   * @throws LoaderError whose code tells what is missing or wrong
   */
  async open(resource: ResourceName, signal: AbortSignal): Promise<OpenResource> {
    await using owned = new AsyncDisposableStack();
    // Taken before the cache is looked at, so that no eviction comes between that and the first byte.
    owned.use(this.#options.cache.hold(resource));
    const { small, big } = await this.#find(resource, signal, this.#options.patience);
    owned.use(big);
    const length = small.plaintextLength(big);
    const opened = owned.move();
    return {
      length,
      source: big.source === undefined ? 'cache' : 'cdn',
      chunks: small.decrypt(big.chunks()),
      [Symbol.asyncDispose]: () => opened.disposeAsync(),
    };
  }

  /**
   * Asks for a resource so that it can be fetched into the cache. It checks as much as `open` does: a copy that passes
   * counts as loaded, and one that fails is set aside. It waits for an API or a CDN that fails as long as `patience` says,
   * now and while the prefetch runs; without one, as long as a load does.
   *
   * @throws LoaderError whose code tells what is missing or wrong
   */
  async prefetch(
    resource: ResourceName,
    signal: AbortSignal,
    patience: Patience = this.#options.patience,
  ): Promise<Prefetch> {
    using _hold = this.#options.cache.hold(resource);
    const { small, big } = await this.#findPatiently(resource, signal, patience);
    await using _big = big;
    small.plaintextLength(big);
    const { cdn } = await this.#options.upstream.session(signal);
    return new Prefetch(resource, small, big, { ...this.#options, cdn, patience });
  }

  /** It waits between the tries and not within them, since each one keeps uploads of the resource waiting. */
  async #findPatiently(resource: ResourceName, signal: AbortSignal, patience: Patience): Promise<Parts> {
    const outage = new Outage(patience);
    for (;;) {
      try {
        const parts = await this.#find(resource, signal, NO_PATIENCE);
        outage.progress();
        return parts;
      } catch (error) {
        await outage.waitOrThrow(error, signal);
      }
    }
  }

  /** Finds the parts of a resource. While they are of two versions, it looks again, for a few seconds. */
  async #find(resource: ResourceName, signal: AbortSignal, patience: Patience): Promise<Parts> {
    assertStorable(resource);
    const attempts = new RetryCounter(UNFINISHED_POLICY);
    for (;;) {
      try {
        return await this.#findOnce(resource, signal, patience);
      } catch (error) {
        await attempts.pauseOrThrow(error, signal);
      }
    }
  }

  async #findOnce(resource: ResourceName, signal: AbortSignal, patience: Patience): Promise<Parts> {
    const { upstream, transfers, memory, publicationLocks } = this.#options;
    const session = await upstream.session(signal);
    const aesKey = session.resourceAesKey();
    using _lock = await publicationLocks.shared(resourceKey(resource), signal);
    const bytes = await session.api.fetchResource(resource.folder, smallPartFile(resource), signal, patience);
    const small = new SmallPart(bytes, aesKey);
    const proofSource = { cdn: session.cdn, signal };
    const cached = await CachedBigPart.find(resource, small, proofSource, this.#options);
    if (cached !== undefined) return { small, big: cached };
    const remote = await RemoteBigPart.find(resource, small, { session, transfers, memory, patience, signal });
    // While the CDN was asked, another caller's transfer may have ended.
    return { small, big: (await CachedBigPart.find(resource, small, proofSource, this.#options)) ?? remote };
  }
}
