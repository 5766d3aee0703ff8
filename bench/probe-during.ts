import { performance } from 'node:perf_hooks';
import { RequestProbe, type RequestProbeOptions } from './request-probe.ts';

export interface ProbedWork {
  /** Runs before the probe starts. */
  readonly prepare?: () => Promise<void>;
  readonly run: () => Promise<void>;
}

/** With fewer answers, the 99th percentile would be the slowest answer. */
const MIN_PROBE_MS = 5000;

/** Returns the latencies of requests while `work` runs, in ms. The work is repeated until it has taken some seconds. */
export async function probeDuring(options: RequestProbeOptions, { prepare, run }: ProbedWork): Promise<number[]> {
  const latenciesMs: number[] = [];
  let probedMs = 0;
  while (probedMs < MIN_PROBE_MS) {
    await prepare?.();
    const startedAt = performance.now();
    latenciesMs.push(...(await probeOnce(options, run)));
    probedMs += performance.now() - startedAt;
  }
  return latenciesMs;
}

/** Returns the latencies of requests during one run of `run`, in ms. */
export async function probeOnce(options: RequestProbeOptions, run: () => Promise<void>): Promise<readonly number[]> {
  const probe = await RequestProbe.start(options);
  let latenciesMs: readonly number[] = [];
  try {
    await run();
  } finally {
    latenciesMs = await probe.stop();
  }
  return latenciesMs;
}
