import { setTimeout as sleep } from 'node:timers/promises';
import { NEVER } from '../async/abort.ts';
import type { BigPartCache } from './big-part-cache.ts';

export interface Usage {
  /** Of copies and of files that were set aside. */
  readonly bytes: number;
  readonly copies: number;
}

/** What a test replaces. */
export interface CacheUsageTimes {
  /** How old a measurement may be, in ms. Each one walks through all folders of the cache. */
  readonly maxAgeMs: number;
  /** A walk keeps the event loop busy: it begins so much later, in ms, when the answer to its caller is out. */
  readonly delayMs: number;
}

const TIMES: CacheUsageTimes = { maxAgeMs: 15_000, delayMs: 50 };
const NOTHING: Usage = { bytes: 0, copies: 0 };

/** How much the cache holds, measured at most every 15 s however often it is asked. */
export class CacheUsage {
  readonly #cache: Pick<BigPartCache, 'list'>;
  readonly #times: CacheUsageTimes;
  #latest: Usage | undefined;
  #measuring: Promise<Usage> | undefined;
  #measuredAtMs = -Infinity;

  constructor(cache: Pick<BigPartCache, 'list'>, times: Partial<CacheUsageTimes> = {}) {
    this.#cache = cache;
    this.#times = { ...TIMES, ...times };
  }

  /**
   * The latest measurement. Only the callers before the end of the first one wait for it; later ones begin the next where
   * it is old. It never rejects: where the cache can't be walked through, the earlier measurement stands.
   */
  async latest(): Promise<Usage> {
    if (this.#measuring === undefined && performance.now() - this.#measuredAtMs >= this.#times.maxAgeMs) {
      this.#measuring = this.#measure().finally(() => {
        this.#measuring = undefined;
      });
    }
    return this.#latest ?? (await this.#measuring) ?? NOTHING;
  }

  async #measure(): Promise<Usage> {
    this.#measuredAtMs = performance.now();
    if (this.#latest !== undefined) await sleep(this.#times.delayMs, undefined, { ref: false });
    let bytes = 0;
    let copies = 0;
    try {
      for await (const { kind, length } of this.#cache.list(NEVER)) {
        bytes += length;
        if (kind === 'copy') copies++;
      }
      this.#latest = { bytes, copies };
    } catch {
      // GET /ready and the log tell of a folder that can't be read.
    }
    return this.#latest ?? NOTHING;
  }
}
