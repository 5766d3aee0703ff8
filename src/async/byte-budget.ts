import { onAbort } from './abort.ts';

/** Bytes of a budget that are held. Its disposal gives them back; a second one does nothing. */
export type Share = Disposable;

/**
 * Gives out shares of a number of bytes, never more than that together. Those who wait get theirs in the order in which
 * they came: a large share is not overtaken by small ones. It is ours since Semaphore gives out one permit at a time, and
 * two holders who each wait for a second one would wait for ever.
 */
export class ByteBudget {
  readonly #total: number;
  #free: number;
  readonly #waiting = new Set<Waiter>();

  constructor(total: number) {
    this.#total = total;
    this.#free = total;
  }

  /** Bytes that are held. */
  get held(): number {
    return this.#total - this.#free;
  }

  /**
   * `using _share = await budget.acquire(bytes, signal)`. Who asks for more than the total gets the whole.
   *
   * Do not wait for a further share while you hold one that you give back only after that.
   *
   * @throws the reason of `signal`; then no share is held
   */
  async acquire(bytes: number, signal: AbortSignal): Promise<Share> {
    signal.throwIfAborted();
    const wanted = Math.min(bytes, this.#total);
    if (this.#waiting.size === 0 && wanted <= this.#free) this.#free -= wanted;
    else await this.#wait(wanted, signal);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        this.#free += wanted;
        this.#serve();
      },
    };
  }

  /** Not by `unlessAborted`: a share that comes together with the abort must not be lost. */
  async #wait(bytes: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const waiter: Waiter = { bytes, enter: () => resolve(undefined) };
    this.#waiting.add(waiter);
    using _listener = onAbort(signal, (reason) => {
      if (!this.#waiting.delete(waiter)) return;
      reject(reason);
      this.#serve(); // It may have kept smaller ones waiting.
    });
    await promise;
  }

  #serve(): void {
    for (const waiter of this.#waiting) {
      if (waiter.bytes > this.#free) return;
      this.#waiting.delete(waiter);
      this.#free -= waiter.bytes;
      waiter.enter();
    }
  }
}

interface Waiter {
  readonly bytes: number;
  readonly enter: () => void;
}
