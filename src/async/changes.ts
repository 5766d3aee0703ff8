/**
 * Tells its readers that a state has changed; they read from the state itself what is new. It is ours since an event
 * emitter needs a listener, a queue and an end for each reader, and a reader would get changes that it has seen
 * already.
 */
export class Changes {
  #next = Promise.withResolvers<undefined>();

  /** Resolves at the next change. Take it before you read the state: a change in between is then not missed. */
  get next(): Promise<undefined> {
    return this.#next.promise;
  }

  announce(): void {
    const { resolve } = this.#next;
    this.#next = Promise.withResolvers<undefined>();
    resolve(undefined);
  }
}
