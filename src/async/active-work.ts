import { Changes } from './changes.ts';

/**
 * Counts work that is under way, so that its end can be waited for: work may outlast the request that began it, since
 * what is unfinished must still be removed when the client has left.
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
