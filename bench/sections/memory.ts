import type { LoaderUnderTest } from '../loader-under-test.ts';
import type { BenchResource } from '../stage.ts';
import { measurePeak, peakRow } from './measure-peak.ts';
import { LARGE_LENGTH, TIMED_LENGTH, type Section, type SectionContext } from './section.ts';

export const memory: Section = { title: 'peak of resident memory over idle, each in a fresh process', run };

/** What the garbage collector's moods make of the same work; a growth with size would be in the hundreds. */
const GROWTH_TARGET_MIB = 32;
const PARALLEL_LOADS = 16;

async function run({ stage, table }: SectionContext): Promise<void> {
  const timed = await stage.resource(TIMED_LENGTH);
  const large = await stage.resource(LARGE_LENGTH);
  const copies = await stage.copies(timed, PARALLEL_LOADS);

  const load = (resource: BenchResource) => async (loader: LoaderUnderTest) => {
    await loader.load(resource.name, resource.length);
    await stage.place.untilCached(resource.name);
  };
  const upload = (resource: BenchResource) => async (loader: LoaderUnderTest) => {
    const name = `uploaded-${resource.name}`;
    await loader.upload(name, resource.plaintextPath);
    await stage.place.untilCached(name);
  };
  const loadAtOnce = (names: readonly string[]) => async (loader: LoaderUnderTest) => {
    // All must have ended, or one failure would leave the others running.
    const loads = await Promise.allSettled(names.map((name) => loader.load(name, timed.length)));
    for (const result of loads) if (result.status === 'rejected') throw result.reason;
    for (const name of names) await stage.place.untilCached(name);
  };
  const sameName = new Array<string>(PARALLEL_LOADS).fill(timed.name);

  const pairs = [
    { what: 'warm load', cached: true, work: load },
    { what: 'cold load', cached: false, work: load },
    { what: 'upload', cached: false, work: upload },
  ];
  for (const { what, cached, work } of pairs) {
    const small = await measurePeak(stage, cached ? timed : undefined, work(timed));
    table.add(peakRow(`memory, ${what} of 300 MB`, small));
    const big = await measurePeak(stage, cached ? large : undefined, work(large));
    table.add(peakRow(`memory, ${what} of 2 GB`, big));
    const growthMib = big.worstMib - small.worstMib;
    table.add({
      what: `memory, ${what}: growth from 300 MB to 2 GB`,
      loader: `${growthMib.toFixed(0)} MiB`,
      target: `<= ${GROWTH_TARGET_MIB} MiB`,
      isMet: growthMib <= GROWTH_TARGET_MIB,
    });
  }
  table.add(peakRow('memory, 16 warm loads of 300 MB at once', await measurePeak(stage, timed, loadAtOnce(sameName))));
  table.add(peakRow('memory, 16 cold loads, one resource', await measurePeak(stage, undefined, loadAtOnce(sameName))));
  table.add(peakRow('memory, 16 cold loads, 16 resources', await measurePeak(stage, undefined, loadAtOnce(copies))));
  await stage.place.freshLoader();
}
