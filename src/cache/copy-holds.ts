/** The number of readers of each copy that has any. A copy that is held stays in the cache. */
export class CopyHolds {
  readonly #readers = new Map<string, number>();

  /** Counts one reader of the copy `key` until the disposal: `using _hold = holds.hold(key)`. */
  hold(key: string): Disposable {
    this.#readers.set(key, (this.#readers.get(key) ?? 0) + 1);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        const others = (this.#readers.get(key) ?? 0) - 1;
        if (others > 0) this.#readers.set(key, others);
        else this.#readers.delete(key);
      },
    };
  }

  isHeld(key: string): boolean {
    return this.#readers.has(key);
  }
}
