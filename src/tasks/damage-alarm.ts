import type { LoaderError } from '../errors.ts';
import { isDamaged, toStoreError } from './store-error.ts';

/** Finds out that a database is damaged while it is in use. */
export class DamageAlarm {
  readonly #found = Promise.withResolvers<undefined>();

  /** Resolves when damage was found. */
  get found(): Promise<undefined> {
    return this.#found.promise;
  }

  /** Calls `work`, which uses the database. @throws LoaderError `task_store_unavailable` for each of its errors */
  guard<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw this.toStoreError(error);
    }
  }

  /** The LoaderError `task_store_unavailable` that a store throws for `error`, which the database has thrown. */
  toStoreError(error: unknown): LoaderError {
    if (isDamaged(error)) this.#found.resolve(undefined);
    return toStoreError(error);
  }
}
