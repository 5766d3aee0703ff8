import { toError } from '../errors.ts';

/**
 * Calls `work` for each item, `count` at a time. When one call fails, no further ones begin; the first failure is thrown
 * when those that were under way have ended.
 */
export async function runInParallel<T>(
  items: readonly T[],
  count: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items.values();
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
  await Promise.all(Array.from({ length: count }, takeTurns));
  if (failure !== undefined) throw failure;
}
