import { performance } from 'node:perf_hooks';
import { request } from 'undici';
import type { UnlockStatus } from '../src/unlock/unlock-service.ts';

export interface UnlockOutcome {
  readonly status: UnlockStatus;
  /** From before POST /unlock until the last event was there. */
  readonly wallMs: number;
}

export interface Credentials {
  readonly email: string;
  readonly password: string;
}

/** Starts an unlock and follows its events to the last. */
export async function runUnlock(
  loaderUrl: string,
  { email, password }: Credentials,
  signal: AbortSignal,
): Promise<UnlockOutcome> {
  const startedAt = performance.now();
  const started = await request(`${loaderUrl}/unlock`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email, password }),
    signal,
  });
  const answer = await started.body.text();
  if (started.statusCode !== 200) throw new Error(`POST /unlock was answered ${started.statusCode} ${answer}`);
  const events = await request(`${loaderUrl}/unlock/events`, { signal, bodyTimeout: 0 });
  if (events.statusCode !== 200) throw new Error(`GET /unlock/events was answered ${events.statusCode}`);
  const text = await events.body.text();
  const wallMs = performance.now() - startedAt;
  const data = [...text.matchAll(/^data: (.+)$/gm)].at(-1)?.[1];
  if (data === undefined) throw new Error('GET /unlock/events ended without an event');
  return { status: JSON.parse(data) as UnlockStatus, wallMs };
}

/** The same for one that must end well. Answers the time in ms. */
export async function unlock(loaderUrl: string, credentials: Credentials, signal: AbortSignal): Promise<number> {
  const { status, wallMs } = await runUnlock(loaderUrl, credentials, signal);
  if (status.state !== 'ready') throw new Error(`the unlock ended as ${status.state}: ${status.error ?? ''}`);
  return wallMs;
}
