/** Tells those who wait for it that something has changed. What has changed, they read from where it stands. */
export class Changes {
  #next = Promise.withResolvers<undefined>();

  /** Resolves at the next change. Take it before you read the state, so that no change in between is missed. */
  get next(): Promise<undefined> {
    return this.#next.promise;
  }

  announce(): void {
    const { resolve } = this.#next;
    this.#next = Promise.withResolvers<undefined>();
    resolve(undefined);
  }
}
