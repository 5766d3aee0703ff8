import { NEVER, unlessAborted } from './abort.ts';

/**
 * For each key, any number of shared holders or one exclusive holder. The order is that of arrival, so that a stream of
 * shared holders does not keep an exclusive one waiting. It is ours since the libraries' locks wait without a signal.
 *
 * A lock is released by its disposal: `using _lock = await locks.shared(key, signal)`.
 */
export class KeyedReadWriteLock {
  readonly #queues = new Map<string, Queue>();

  /** Waits no longer than until `signal` aborts. @throws its reason */
  async shared(key: string, signal: AbortSignal): Promise<Disposable> {
    return await this.#acquire(key, 'shared', signal);
  }

  async exclusive(key: string): Promise<Disposable> {
    return await this.#acquire(key, 'exclusive', NEVER);
  }

  /** The number of keys that have a holder, present or waiting. */
  get size(): number {
    return this.#queues.size;
  }

  async #acquire(key: string, mode: 'shared' | 'exclusive', signal: AbortSignal): Promise<Disposable> {
    const queue = this.#queues.get(key) ?? { lastExclusive: Promise.resolve(), shared: new Set(), users: 0 };
    this.#queues.set(key, queue);
    queue.users++;
    const { promise: released, resolve } = Promise.withResolvers<undefined>();
    const turn: Promise<unknown> =
      mode === 'exclusive' ? Promise.all([queue.lastExclusive, ...queue.shared]) : queue.lastExclusive;
    if (mode === 'exclusive') {
      queue.lastExclusive = released;
      // This holder waits for the earlier shared ones; the later ones wait for it.
      queue.shared.clear();
    } else {
      queue.shared.add(released);
    }
    const release = () => {
      resolve(undefined);
      queue.shared.delete(released);
      queue.users--;
      if (queue.users === 0) this.#queues.delete(key);
    };
    try {
      await unlessAborted(turn, signal);
    } catch (error) {
      release();
      throw error;
    }
    return { [Symbol.dispose]: release };
  }
}

interface Queue {
  /** Ends when the exclusive lock that was asked for last is released. */
  lastExclusive: Promise<unknown>;
  /** The shared locks that were asked for after that one. */
  readonly shared: Set<Promise<undefined>>;
  users: number;
}
