/** Lets one holder of each key in at a time; the others wait in the order in which they came. */
export class KeyedLock {
  /** The last holder of each key that has one, present or waiting. */
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
