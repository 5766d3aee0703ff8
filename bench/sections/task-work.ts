import type { TaskClient } from '../../lab/task-client.ts';

/**
 * Runs so many tasks one after the other, each of which finds an empty cache and has nothing to do. It asks for each until
 * it has ended: a stream of events would take a connection of its own.
 */
export async function runEmptyTasks(tasks: TaskClient, count: number): Promise<void> {
  for (let index = 0; index < count; index++) {
    const uid = await tasks.begin('evict', { max_bytes: 0 });
    let task = await tasks.details(uid);
    while (task.status === 'in_progress') task = await tasks.details(uid);
    if (task.status !== 'complete') throw new Error(`evict is ${task.status}: ${task.error ?? ''}`);
  }
}

/** Verifies a cache that has one good copy of a resource, of `minBytes` at least. */
export async function runVerify(tasks: TaskClient, minBytes: number): Promise<void> {
  const { result } = await tasks.complete('verify');
  const { good, bytes } = result as { readonly good: number; readonly bytes: number };
  if (good === 0 || bytes < minBytes) throw new Error(`verify answered ${JSON.stringify(result)}`);
}
