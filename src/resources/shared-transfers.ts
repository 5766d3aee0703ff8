import { SharedTransfer, type Follower, type SharedTransferOptions } from './shared-transfer.ts';

/** The transfers that are under way, so that callers who want the same version of an object share one. */
export class SharedTransfers {
  readonly #transfers = new Map<string, SharedTransfer>();

  /** Joins the transfer with this key, or starts it. */
  join(key: string, options: SharedTransferOptions): Follower {
    const present = this.#transfers.get(key);
    if (present?.isJoinable === true) return present.join();
    const transfer = new SharedTransfer(options);
    this.#transfers.set(key, transfer);
    void transfer.ended.then(() => {
      if (this.#transfers.get(key) === transfer) this.#transfers.delete(key);
    });
    return transfer.join();
  }

  get size(): number {
    return this.#transfers.size;
  }
}
