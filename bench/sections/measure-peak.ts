import { setTimeout as sleep } from 'node:timers/promises';
import type { LoaderUnderTest } from '../loader-under-test.ts';
import { MemoryWatch } from '../memory-watch.ts';
import type { BenchResource, Stage } from '../stage.ts';
import type { Row } from '../table.ts';
import { MB } from './section.ts';

/** MiB over idle. */
export interface PeakMib {
  readonly sampled: number;
  readonly highWater: number;
  /** The larger one. */
  readonly worstMib: number;
}

const MIB = 1024 * 1024;
const TARGET_MIB = 128;
/** For what the start, the login and the first load left to be done. */
const SETTLE_MS = 500;

/** The peak of `work` in a fresh process that has served one small load, with only `cached` in the cache. */
export async function measurePeak(
  stage: Stage,
  cached: BenchResource | undefined,
  work: (loader: LoaderUnderTest) => Promise<void>,
): Promise<PeakMib> {
  const first = await stage.resource(MB);
  await stage.place.clearCache();
  if (cached !== undefined) await stage.place.warm(cached);
  const loader = await stage.place.freshLoader();
  await stage.place.warm(first);
  await sleep(SETTLE_MS, undefined, { signal: stage.signal });
  using watch = new MemoryWatch(loader.pid);
  await work(loader);
  const { sampled, highWater } = watch.read();
  return { sampled: sampled / MIB, highWater: highWater / MIB, worstMib: Math.max(sampled, highWater) / MIB };
}

export function peakRow(what: string, { sampled, highWater, worstMib }: PeakMib): Row {
  return {
    what,
    loader: `${sampled.toFixed(0)} MiB sampled, ${highWater.toFixed(0)} MiB VmHWM`,
    target: `<= ${TARGET_MIB} MiB`,
    isMet: worstMib <= TARGET_MIB,
  };
}
