import { performance } from 'node:perf_hooks';
import { RequestProbe, type RequestProbeOptions } from './request-probe.ts';

export interface ProbedWork {
  /** Not probed. */
  readonly prepare?: () => Promise<void>;
  readonly run: () => Promise<void>;
}

/** Of fewer answers, the 99th percentile would be nothing but the slowest. */
const MIN_PROBE_MS = 5000;

/** How long answers take while `work` runs, in ms; it is repeated until it has taken some seconds. */
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

/** How long answers take while `run` runs, once. */
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
