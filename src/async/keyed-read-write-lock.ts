import { unlessAborted } from './abort.ts';

/**
 * Keeps, per resource, those who open its parts (shared) apart from the one who publishes new ones (exclusive): nobody
 * in this process gets the small part of one upload and the big part of another. Nothing polls; the order is that of
 * arrival, so that a stream of loads does not keep an upload waiting.
 */
export class PublicationLock {
  readonly #queues = new Map<string, Queue>();

  /** Waits no longer than until `signal` aborts. @throws its reason, or what `work` throws */
  async shared<T>(key: string, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return await this.#run(key, 'shared', work, signal);
  }

  async exclusive<T>(key: string, work: () => Promise<T>): Promise<T> {
    return await this.#run(key, 'exclusive', work, NEVER);
  }

  /** How many resources have a holder or somebody who waits. */
  get size(): number {
    return this.#queues.size;
  }

  async #run<T>(key: string, mode: Mode, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const queue = this.#queues.get(key) ?? { lastExclusive: Promise.resolve(), shared: new Set(), users: 0 };
    this.#queues.set(key, queue);
    queue.users++;
    const { promise: done, resolve: release } = Promise.withResolvers<undefined>();
    const turn: Promise<unknown> =
      mode === 'exclusive' ? Promise.all([queue.lastExclusive, ...queue.shared]) : queue.lastExclusive;
    if (mode === 'exclusive') {
      queue.lastExclusive = done;
      // Whoever comes later waits for us, and we have taken note of those before.
      queue.shared.clear();
    } else {
      queue.shared.add(done);
    }
    try {
      await unlessAborted(turn, signal);
      return await work();
    } finally {
      release(undefined);
      queue.shared.delete(done);
      queue.users--;
      if (queue.users === 0) this.#queues.delete(key);
    }
  }
}

const NEVER = new AbortController().signal;

type Mode = 'shared' | 'exclusive';

interface Queue {
  /** Ends when the last exclusive work that was asked for is done. */
  lastExclusive: Promise<unknown>;
  /** The shared works that came after it. */
  readonly shared: Set<Promise<undefined>>;
  users: number;
}
