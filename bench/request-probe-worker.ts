import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { Agent, request } from 'undici';
import type { RequestProbeData, RequestProbeReport } from './request-probe.ts';

/**
 * Sends its request at a fixed rate until a message stops it. Then it reports the time of each answer in ms, from
 * the moment when it was due to be asked for.
 *
 * It does not wait for one answer before it asks again: else a stall would hide the questions that it held up.
 */

const { url, headers, rate } = workerData as RequestProbeData;
if (parentPort === null) throw new Error('the probe runs as a worker only');
const port = parentPort;
const intervalMs = 1000 / rate;
const dispatcher = new Agent({ keepAliveTimeout: 60_000 });
const latenciesMs: number[] = [];
const failures: string[] = [];
const pending = new Set<Promise<void>>();
const stop = new AbortController();
port.once('message', () => {
  stop.abort();
});

async function probe(dueAt: number): Promise<void> {
  // Timers may come a fraction of a millisecond too early, which must not count for the Loader.
  const startedAt = Math.min(dueAt, performance.now());
  try {
    const { statusCode, body } = await request(url, { dispatcher, headers });
    await body.text();
    latenciesMs.push(performance.now() - startedAt);
    if (statusCode !== 200) failures.push(`status ${statusCode}`);
  } catch (error) {
    failures.push(String(error));
  }
}

await probe(performance.now()); // The connection is made.
latenciesMs.length = 0;
port.postMessage('ready');
for (let dueAt = performance.now(); !stop.signal.aborted; dueAt += intervalMs) {
  const asking = probe(dueAt);
  pending.add(asking);
  void asking.then(() => pending.delete(asking));
  await sleep(Math.max(0, dueAt + intervalMs - performance.now()));
}
await Promise.all(pending);
await dispatcher.close();
const report: RequestProbeReport = { latenciesMs, failures };
port.postMessage(report);
port.close();
