import { performance } from 'node:perf_hooks';
import { bodyOf } from '../lab/json-answer.ts';
import type { LoaderClient } from '../lab/loader-client.ts';
import { DEMO_USER } from '../lab/upstream/origin.ts';
import type { UnlockStatus } from '../src/unlock/unlock-service.ts';

export interface UnlockOutcome {
  readonly status: UnlockStatus;
  /** From before POST /unlock until the last event was there. */
  readonly wallMs: number;
}

/** Starts an unlock and follows its events to the last. */
export async function runUnlock(client: LoaderClient): Promise<UnlockOutcome> {
  const startedAt = performance.now();
  bodyOf(await client.startUnlock(DEMO_USER.email, DEMO_USER.password));
  const status = (await Array.fromAsync(client.watchUnlock())).at(-1);
  if (status === undefined) throw new Error('GET /unlock/events ended without an event');
  return { status, wallMs: performance.now() - startedAt };
}

/** Runs an unlock that must end as `ready`. Returns its time in ms. */
export async function unlock(client: LoaderClient): Promise<number> {
  const { status, wallMs } = await runUnlock(client);
  if (status.state !== 'ready') throw new Error(`the unlock ended as ${status.state}: ${status.error ?? ''}`);
  return wallMs;
}
