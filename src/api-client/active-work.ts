/**
 * The work that requests have begun and that may outlast their connections: when a client leaves, or the time to stop
 * is over, unfinished files and uploads are still to be removed.
 */
export class ActiveWork {
  readonly #running = new Set<Promise<unknown>>();

  async run<T>(work: () => Promise<T>): Promise<T> {
    const running = work();
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  /** Waits until no work is running. It never fails. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }
}
