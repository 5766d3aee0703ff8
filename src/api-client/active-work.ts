import { Changes } from '../async/changes.ts';

/**
 * Counts the work that requests have begun and that may outlast their connections: when a client leaves, or the time to
 * stop is over, unfinished files and uploads are still to be removed.
 */
export class ActiveWork {
  readonly #changes = new Changes();
  #count = 0;

  /** Counts one piece of work until its disposal. */
  track(): Disposable {
    this.#count++;
    let isTracked = true;
    return {
      [Symbol.dispose]: () => {
        if (!isTracked) return;
        isTracked = false;
        this.#count--;
        this.#changes.announce();
      },
    };
  }

  /** Waits until no work is under way. */
  async settled(): Promise<void> {
    while (this.#count > 0) await this.#changes.next;
  }
}
