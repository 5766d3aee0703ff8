import { ByteBudget, type Share } from './byte-budget.ts';

/** A permit of a semaphore. Its disposal gives the permit back; a second one does nothing. */
export type Permit = Share;

/** Gives out a number of permits at a time, one to each holder: a budget whose shares all have the size 1. */
export class Semaphore {
  readonly #permits: ByteBudget;

  constructor(permits: number) {
    this.#permits = new ByteBudget(permits);
  }

  /** `using _permit = await semaphore.acquire(signal)`. @throws the reason of `signal`; then no permit is held */
  async acquire(signal: AbortSignal): Promise<Permit> {
    return await this.#permits.acquire(1, signal);
  }
}
