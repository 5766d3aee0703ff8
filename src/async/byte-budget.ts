import { onAbort } from './abort.ts';

/** Bytes of a budget that are held. Its disposal gives them back; a second one does nothing. */
export type Share = Disposable;

/**
 * Gives out shares of a number of bytes, never more than that together. Callers who wait get theirs in the order in which
 * they came: a large share is not overtaken by small ones. It is ours since a library's permit is no Disposable, its wait
 * knows no signal, and permits of one size make two holders who each need several wait for ever.
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

  /** How many callers wait for a share. */
  get waiting(): number {
    return this.#waiting.size;
  }

  get total(): number {
    return this.#total;
  }

  /**
   * `using _share = await budget.acquire(bytes, signal)`. A caller who asks for more than the total gets the whole.
   *
   * Do not wait for a further share while you hold one that you give back only after that.
   *
   * @throws the reason of `signal`; then no share is held
   */
  async acquire(bytes: number, signal: AbortSignal): Promise<Share> {
    signal.throwIfAborted();
    const wanted = Math.min(bytes, this.#total);
    if (!this.#take(wanted)) await this.#wait(wanted, signal);
    return this.#share(wanted);
  }

  /** A share that is there at once; undefined where the caller would have to wait. */
  tryAcquire(bytes: number): Share | undefined {
    const wanted = Math.min(bytes, this.#total);
    return this.#take(wanted) ? this.#share(wanted) : undefined;
  }

  #take(wanted: number): boolean {
    if (this.#waiting.size > 0 || wanted > this.#free) return false;
    this.#free -= wanted;
    return true;
  }

  #share(wanted: number): Share {
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

  /** It does not use `unlessAborted`, since a share that comes together with the abort must not be lost. */
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
