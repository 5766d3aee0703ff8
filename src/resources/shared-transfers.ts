import type { Patience } from '../async/outage.ts';
import { Parallelism } from '../net/parallelism.ts';
import type { Follower } from './follower.ts';
import { SharedTransfer, type SharedTransferOptions } from './shared-transfer.ts';
import type { TransferSource } from './transfer-source.ts';

export type SharedTransfersOptions = Omit<SharedTransferOptions, 'parallelism' | 'source'>;

/** The transfers that are under way: callers who want the same version of an object share one. */
export class SharedTransfers {
  readonly #options: SharedTransfersOptions;
  readonly #parallelism = new Parallelism();
  readonly #transfers = new Map<string, SharedTransfer>();

  constructor(options: SharedTransfersOptions) {
    this.#options = options;
  }

  /** The number of transfers that are under way. */
  get size(): number {
    return this.#transfers.size;
  }

  /** Joins the transfer of this version of the object, or starts it. Dispose of the follower. */
  join(source: TransferSource, signal: AbortSignal, patience: Patience): Follower {
    const key = keyOf(source);
    const present = this.#transfers.get(key);
    if (present?.isJoinable === true) return present.join(signal, patience);
    const transfer = new SharedTransfer({ ...this.#options, parallelism: this.#parallelism, source });
    this.#transfers.set(key, transfer);
    void this.#forgetAtItsEnd(key, transfer);
    return transfer.join(signal, patience);
  }

  async #forgetAtItsEnd(key: string, transfer: SharedTransfer): Promise<void> {
    await transfer.ended;
    // A new transfer may have taken the place of one that failed.
    if (this.#transfers.get(key) === transfer) this.#transfers.delete(key);
  }
}

/** Equal for callers whose transfers fetch the same bytes and publish the same copy. */
function keyOf({ object, record }: TransferSource): string {
  const { bucket, key, length, smallSha256, etag, modifiedMs } = object;
  return JSON.stringify([
    bucket,
    key,
    length,
    smallSha256 ?? etag ?? modifiedMs,
    record.smallSha256,
    record.manifest?.toString('base64'),
  ]);
}
