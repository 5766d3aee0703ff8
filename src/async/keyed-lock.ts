/** Lets works that have the same key run one after the other, in the order in which they came. */
export class Turns {
  /** The last work of each key that has one. */
  readonly #last = new Map<string, Promise<undefined>>();

  async take<T>(key: string, work: () => Promise<T>): Promise<T> {
    const earlier = this.#last.get(key);
    const { promise: done, resolve: release } = Promise.withResolvers<undefined>();
    this.#last.set(key, done);
    try {
      await earlier;
      return await work();
    } finally {
      release(undefined);
      if (this.#last.get(key) === done) this.#last.delete(key);
    }
  }
}
