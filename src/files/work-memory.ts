import { ByteBudget, type Share } from '../async/byte-budget.ts';
import { SlabPool, type PooledBuffer } from './slab-pool.ts';

/**
 * The memory of all uploads and of all that is read from the CDN: a budget, and the large buffers within it. A caller
 * holds a share of the budget before it takes a buffer.
 */
export class WorkMemory {
  readonly #budget: ByteBudget;
  /** One for each length of buffers. */
  readonly #pools = new Map<number, SlabPool>();

  constructor(bytes: number) {
    this.#budget = new ByteBudget(bytes);
  }

  /** Bytes that all shares have together. */
  get budget(): number {
    return this.#budget.total;
  }

  /** Bytes of the shares that are held. */
  get held(): number {
    return this.#budget.held;
  }

  /** How many callers wait for a share. */
  get waiting(): number {
    return this.#budget.waiting;
  }

  /** Whether some callers wait for a share. */
  get isWanted(): boolean {
    return this.waiting > 0;
  }

  /** As `ByteBudget.acquire`. */
  async acquire(bytes: number, signal: AbortSignal): Promise<Share> {
    return await this.#budget.acquire(bytes, signal);
  }

  /**
   * A buffer within a share that the caller holds. Dispose of it first. Readers of a transfer, whose buffers are small, hold
   * no share.
   */
  take(length: number): PooledBuffer {
    let pool = this.#pools.get(length);
    if (pool === undefined) {
      pool = new SlabPool(length);
      this.#pools.set(length, pool);
    }
    return pool.take();
  }
}
