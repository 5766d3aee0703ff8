import { setTimeout as sleep } from 'node:timers/promises';
import type { LoaderUnderTest } from '../loader-under-test.ts';
import { MemoryWatch, type MemoryPeak } from '../memory-watch.ts';
import type { BenchResource } from '../stage.ts';
import { LARGE_LENGTH, MB, TIMED_LENGTH, type Section, type SectionContext } from './section.ts';

export const memory: Section = { title: 'peak of resident memory over idle, each in a fresh process', run };

const MIB = 1024 * 1024;
const TARGET_MIB = 128;
/** What the garbage collector's moods make of the same work; a growth with size would be in the hundreds. */
const GROWTH_TARGET_MIB = 32;
const PARALLEL_LOADS = 16;
/** For what the start, the login and the first load left to be done. */
const SETTLE_MS = 500;

async function run(context: SectionContext): Promise<void> {
  const { stage, table } = context;
  const timed = await stage.resource(TIMED_LENGTH);
  const large = await stage.resource(LARGE_LENGTH);
  const copies = await stage.copies(timed, PARALLEL_LOADS);

  const load = (resource: BenchResource) => async (loader: LoaderUnderTest) => {
    await loader.load(resource.name, resource.length);
  };
  const upload = (resource: BenchResource) => async (loader: LoaderUnderTest) => {
    await loader.upload(`uploaded-${resource.name}`, resource.plaintextPath);
  };
  const loadAtOnce = (names: readonly string[]) => async (loader: LoaderUnderTest) => {
    // All must have ended, or one failure would leave the others running.
    const loads = await Promise.allSettled(names.map((name) => loader.load(name, timed.length)));
    for (const result of loads) if (result.status === 'rejected') throw result.reason;
  };
  const sameName = new Array<string>(PARALLEL_LOADS).fill(timed.name);

  const pairs = [
    { what: 'warm load', cached: true, work: load },
    { what: 'cold load', cached: false, work: load },
    { what: 'upload', cached: false, work: upload },
  ];
  for (const { what, cached, work } of pairs) {
    const small = await measure(context, cached ? timed : undefined, work(timed));
    addPeak(context, `memory, ${what} of 300 MB`, small);
    const big = await measure(context, cached ? large : undefined, work(large));
    addPeak(context, `memory, ${what} of 2 GB`, big);
    const growthMib = (worst(big) - worst(small)) / MIB;
    table.add({
      what: `memory, ${what}: growth from 300 MB to 2 GB`,
      loader: `${growthMib.toFixed(0)} MiB`,
      target: `<= ${GROWTH_TARGET_MIB} MiB`,
      isMet: growthMib <= GROWTH_TARGET_MIB,
    });
  }
  addPeak(context, 'memory, 16 warm loads of 300 MB at once', await measure(context, timed, loadAtOnce(sameName)));
  addPeak(context, 'memory, 16 cold loads, one resource', await measure(context, undefined, loadAtOnce(sameName)));
  addPeak(context, 'memory, 16 cold loads, 16 resources', await measure(context, undefined, loadAtOnce(copies)));
  await stage.freshLoader();
}

/** The peak of `work` in a fresh process that has served one small load, with only `cached` in the cache. */
async function measure(
  { stage }: SectionContext,
  cached: BenchResource | undefined,
  work: (loader: LoaderUnderTest) => Promise<void>,
): Promise<MemoryPeak> {
  const first = await stage.resource(MB);
  await stage.clearCache();
  if (cached !== undefined) await stage.warm(cached);
  const loader = await stage.freshLoader();
  await stage.warm(first);
  await sleep(SETTLE_MS, undefined, { signal: stage.signal });
  using watch = new MemoryWatch(loader.pid);
  await work(loader);
  return watch.read();
}

function addPeak({ table }: SectionContext, what: string, peak: MemoryPeak): void {
  const peakMib = worst(peak) / MIB;
  table.add({
    what,
    loader: `${(peak.sampled / MIB).toFixed(0)} MiB sampled, ${(peak.highWater / MIB).toFixed(0)} MiB VmHWM`,
    target: `<= ${TARGET_MIB} MiB`,
    isMet: peakMib <= TARGET_MIB,
  });
}

function worst({ sampled, highWater }: MemoryPeak): number {
  return Math.max(sampled, highWater);
}
