import { toError } from '../errors.ts';

/**
 * Calls `work` for each item, `limit` at a time. After a failure no further calls begin, and the first failure is thrown
 * when the calls that were under way have ended. It is ours since `p-limit` and its kind throw while calls still run.
 */
export async function forEachLimit<T>(
  items: Iterable<T>,
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = Iterator.from(items);
  let failure: Error | undefined;
  const takeTurns = async () => {
    for (const item of queue) {
      try {
        await work(item);
      } catch (error) {
        failure ??= toError(error);
      }
      if (failure !== undefined) return;
    }
  };
  await Promise.all(Array.from({ length: limit }, takeTurns));
  if (failure !== undefined) throw failure;
}
