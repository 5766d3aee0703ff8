import { NEVER } from '../async/abort.ts';
import type { BigPartCache } from './big-part-cache.ts';

export interface Usage {
  /** Of copies and of files that were set aside. */
  readonly bytes: number;
  readonly copies: number;
}

/** How old a measurement may be, in ms. Each one walks through all folders of the cache. */
const MAX_AGE_MS = 15_000;

/** How much the cache holds, measured at most every 15 s however often it is asked. */
export class CacheUsage {
  readonly #cache: Pick<BigPartCache, 'list'>;
  #latest: Promise<Usage> | undefined;
  #measuring: Promise<Usage> | undefined;
  #measuredAtMs = -Infinity;

  constructor(cache: Pick<BigPartCache, 'list'>) {
    this.#cache = cache;
  }

  /** The latest measurement. Only the first caller of all waits for one; later ones get that and begin the next. */
  async latest(): Promise<Usage> {
    if (this.#measuring === undefined && performance.now() - this.#measuredAtMs >= MAX_AGE_MS) {
      this.#measuredAtMs = performance.now();
      const measuring = this.#measure().finally(() => {
        this.#latest = measuring;
        this.#measuring = undefined;
      });
      this.#measuring = measuring;
    }
    return await (this.#latest ?? this.#measuring ?? { bytes: 0, copies: 0 });
  }

  async #measure(): Promise<Usage> {
    let bytes = 0;
    let copies = 0;
    for await (const { kind, length } of this.#cache.list(NEVER)) {
      bytes += length;
      if (kind === 'copy') copies++;
    }
    return { bytes, copies };
  }
}
