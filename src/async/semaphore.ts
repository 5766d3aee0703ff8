import { onAbort } from './abort.ts';

/** A permit of a semaphore. Its disposal gives the permit back; a second one does nothing. */
export type Permit = Disposable;

/**
 * Gives out a number of permits at a time; further holders wait in the order in which they came. It is ours since a
 * library's permit is no Disposable, and its wait knows no signal.
 */
export class Semaphore {
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(permits: number) {
    this.#free = permits;
  }

  /** `using _permit = await semaphore.acquire(signal)`. @throws the reason of `signal`; then no permit is held */
  async acquire(signal: AbortSignal): Promise<Permit> {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free--;
    else await this.#wait(signal);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        this.#release();
      },
    };
  }

  /** It does not use `unlessAborted`, since a permit that comes together with the abort must not be lost. */
  async #wait(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const enter = () => resolve(undefined);
    this.#waiting.add(enter);
    using _listener = onAbort(signal, (reason) => {
      this.#waiting.delete(enter);
      reject(reason);
    });
    await promise;
  }

  #release(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free++;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}
