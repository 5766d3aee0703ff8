import type { ResourceName } from '../resource-name.ts';
import type { BigPart } from './big-part.ts';
import { CachedBigPart, type CachedBigPartOptions } from './cached-big-part.ts';
import type { SmallPart } from './envelope-parts.ts';
import type { TransferSource } from './transfer-source.ts';
import type { SharedTransfers } from './shared-transfers.ts';
import type { WriteProgress } from './written-ranges.ts';

export interface PrefetchOptions extends Omit<CachedBigPartOptions, 'signal'> {
  readonly transfers: SharedTransfers;
}

/**
 * A resource that was asked for, so that the cache gets its big part: key and padding are proven, its length is known.
 * Nothing is open for it, so there may be many at a time.
 */
export class Prefetch {
  /** Bytes of the big part. */
  readonly length: number;
  readonly #resource: ResourceName;
  readonly #small: SmallPart;
  readonly #source: TransferSource | undefined;
  readonly #options: PrefetchOptions;

  constructor(resource: ResourceName, small: SmallPart, big: BigPart, options: PrefetchOptions) {
    this.length = big.length;
    this.#resource = resource;
    this.#small = small;
    this.#source = big.source;
    this.#options = options;
  }

  /** Whether the cache had a fitting copy when the resource was asked for. */
  get isCached(): boolean {
    return this.#source === undefined;
  }

  /**
   * Fetches the version that was asked for into the cache, and yields how far it is. It asks
   * nothing but the ranges of the CDN, and nothing at all where the cache has a fitting copy by now. After a failure, and
   * when the consumer leaves, nothing unfinished is left on the disk or of connections.
   *
   * @throws LoaderError, such as `cdn_object_changed` when the CDN has another version by now; the reason of `signal`
   */
  async *run(signal: AbortSignal): AsyncGenerator<WriteProgress, void, undefined> {
    if (this.#source === undefined) return;
    const { cache, transfers, patience } = this.#options;
    using _hold = cache.hold(this.#resource);
    {
      // While other resources had their turn, a load may have brought this one.
      await using copy = await CachedBigPart.find(this.#resource, this.#small, { ...this.#options, signal });
      if (copy !== undefined) return;
    }
    signal.throwIfAborted();
    await using follower = transfers.join(this.#source, signal, patience);
    yield* follower.stored();
  }
}
