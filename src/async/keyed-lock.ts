/**
 * Lets in one holder of each key at a time; the others wait in the order in which they came. It is ours since a lock of
 * a library is released by a call that can be forgotten, and keeps its keys for ever.
 */
export class KeyedLock {
  /** For each key that has a holder: the release of the last one, present or waiting. */
  readonly #last = new Map<string, Promise<undefined>>();

  /** The lock is released by its disposal: `using _lock = await locks.acquire(key)`. */
  async acquire(key: string): Promise<Disposable> {
    const earlier = this.#last.get(key);
    const { promise: released, resolve } = Promise.withResolvers<undefined>();
    this.#last.set(key, released);
    await earlier;
    return {
      [Symbol.dispose]: () => {
        resolve(undefined);
        if (this.#last.get(key) === released) this.#last.delete(key);
      },
    };
  }
}
