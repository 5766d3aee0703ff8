import { ByteBudget } from '../async/byte-budget.ts';
import type { KeyedReadWriteLock } from '../async/keyed-read-write-lock.ts';
import { NO_PATIENCE, Outage, type Patience } from '../async/outage.ts';
import { RetryCounter } from '../async/retry.ts';
import type { BigPartCache } from '../cache/big-part-cache.ts';
import { recordOfManifest, type CopyRecord } from '../cache/copy-record.ts';
import type { WorkMemory } from '../files/work-memory.ts';
import type { Logger } from '../log/logger.ts';
import type { Manifest } from '../manifest/manifest.ts';
import { assertStorable, resourceKey, smallPartFile, type ResourceName } from '../resource-name.ts';
import type { Session } from '../upstream/upstream.ts';
import type { BigPart } from './big-part.ts';
import { CachedBigPart, menderOf, type CachedBigPartOptions } from './cached-big-part.ts';
import type { ChunkPool } from './chunk-pool.ts';
import type { CopyProofs } from './copy-proofs.ts';
import { SmallPart } from './envelope-parts.ts';
import { PartPair } from './part-pair.ts';
import type { PlaintextRange } from './plaintext-reader.ts';
import { Prefetch } from './prefetch.ts';
import { RemoteBigPart } from './remote-big-part.ts';
import { RemoteVersions, UnfinishedVersionError } from './remote-versions.ts';
import type { ResourceManifests } from './resource-manifests.ts';
import type { SharedTransfers } from './shared-transfers.ts';

export interface DownloadServiceOptions {
  readonly upstream: { session(signal: AbortSignal): Promise<Pick<Session, 'api' | 'cdn' | 'resourceAesKey'>> };
  readonly cache: BigPartCache;
  readonly proofs: CopyProofs;
  readonly transfers: SharedTransfers;
  readonly manifests: ResourceManifests;
  readonly pool: ChunkPool;
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
  /** Tells this version from every other one: SHA-256, hex, of the plaintext, or of the small part without a manifest. */
  readonly identity: string;
  /** The manifest of its version; undefined where it has none. */
  readonly manifest: Manifest | undefined;
  /** The plaintext, or a range of it, once. It fails rather than end early, and each piece belongs to the consumer. */
  read(range?: PlaintextRange): AsyncIterable<Buffer>;
}

interface Parts {
  readonly small: SmallPart;
  readonly big: BigPart;
}

/** How long an upload of another device may take between its parts: about four seconds. */
const UNFINISHED_POLICY = {
  attempts: 6,
  baseDelayMs: 250,
  isRetryable: (error: unknown) => error instanceof UnfinishedVersionError,
};
/** Bytes of plaintext that wait for the readers of all loads. */
const PLAINTEXT_MEMORY = 32 * 1024 * 1024;

/** Loads resources: small part from the API, big part from the cache or the CDN, joined and decrypted as they come. */
export class DownloadService {
  readonly #options: DownloadServiceOptions;
  readonly #versions: RemoteVersions;
  readonly #plaintexts = new ByteBudget(PLAINTEXT_MEMORY);

  constructor(options: DownloadServiceOptions) {
    this.#options = options;
    this.#versions = new RemoteVersions(options);
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
    const length = big.plaintextLength(small);
    const opened = owned.move();
    return {
      length,
      source: big.source === undefined ? 'cache' : 'cdn',
      identity: big.manifest?.sha256 ?? small.sha256,
      manifest: big.manifest,
      read: (range = { start: 0, end: length }) => big.plaintext(small, range),
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
    big.plaintextLength(small);
    const session = await this.#options.upstream.session(signal);
    return new Prefetch(resource, small, big, {
      ...this.#options,
      ...this.#reading({ session, patience, signal }),
    });
  }

  /**
   * Gets chunks of a copy again that are damaged or missing, each alone, and writes them back.
   *
   * @throws LoaderError as `ChunkMender.mend` does; `not_authenticated`
   */
  async mend(resource: ResourceName, chunks: readonly number[], signal: AbortSignal): Promise<void> {
    const { cache, patience, upstream } = this.#options;
    const session = await upstream.session(signal);
    using _hold = cache.hold(resource);
    await using copy = await cache.open(resource);
    if (copy === undefined) return;
    const mender = menderOf(copy, { resource, options: this.#reading({ session, patience, signal }) });
    for (const index of chunks) await mender.mend(index, new Error('it was found when the copy was verified'));
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
        try {
          await attempts.pauseOrThrow(error, signal);
        } catch (last) {
          if (!(last instanceof UnfinishedVersionError)) throw last;
          this.#versions.settle(resource, last);
        }
      }
    }
  }

  async #findOnce(resource: ResourceName, signal: AbortSignal, patience: Patience): Promise<Parts> {
    const { upstream, transfers, publicationLocks } = this.#options;
    const session = await upstream.session(signal);
    const aesKey = session.resourceAesKey();
    using _lock = await publicationLocks.shared(resourceKey(resource), signal);
    const bytes = await session.api.fetchResource(resource.folder, smallPartFile(resource), signal, patience);
    const small = new SmallPart(bytes, aesKey);
    const reading = this.#reading({ session, patience, signal });
    const cached = await CachedBigPart.find(resource, small, reading);
    if (cached !== undefined) return { small, big: cached };
    const { object, accepted } = await this.#versions.find(resource, small, reading);
    // While the CDN was asked, another caller's transfer may have ended; and a copy may be older than its manifest.
    const later =
      (await CachedBigPart.find(resource, small, reading)) ??
      (accepted && (await CachedBigPart.adopt(resource, small, accepted, reading)));
    if (later !== undefined) return { small, big: later };
    const record: CopyRecord =
      accepted === undefined
        ? {
            bigLength: object.length,
            smallSha256: small.sha256,
            etag: object.etag,
            isPair: object.smallSha256 !== undefined,
            madeAtMs: Date.now(),
          }
        : recordOfManifest(accepted.manifest, accepted.sealed);
    const source = { cdn: session.cdn, object, resource, record, pair: new PartPair(resource, record, session.api) };
    return { small, big: new RemoteBigPart(source, accepted?.manifest, { ...reading, transfers }) };
  }

  #reading(subject: Pick<CachedBigPartOptions, 'patience' | 'session' | 'signal'>): CachedBigPartOptions {
    const { cache, proofs, manifests, pool, memory, logger } = this.#options;
    return { ...subject, cache, proofs, manifests, pool, memory, logger, budget: this.#plaintexts };
  }
}
