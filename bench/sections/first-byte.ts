import { interleave, median } from '../measure.ts';
import type { BenchResource } from '../stage.ts';
import { MB, type Section, type SectionContext } from './section.ts';

export const firstByte: Section = { title: 'time to the first byte, 1 GB beside 1 MB', run };

const TARGET_MS = 20;

async function run({ stage, table, rounds }: SectionContext): Promise<void> {
  const small = await stage.resource(MB);
  const large = await stage.resource(1000 * MB);
  // What a load of 1 GB leaves to the garbage collector would count against the 1 MB after it: this one takes it.
  const between = await stage.resource(2 * MB);
  const loader = await stage.place.loader();
  const warm = async (resource: BenchResource) => {
    await stage.place.warm(between);
    return (await loader.load(resource.name, resource.length)).firstByteMs;
  };
  const cold = async (resource: BenchResource) => {
    await stage.place.clearCache();
    await stage.place.warm(between);
    const { firstByteMs } = await loader.load(resource.name, resource.length);
    await stage.place.untilCached(resource.name);
    return firstByteMs;
  };
  for (const [what, measure] of [
    ['warm', warm],
    ['cold', cold],
  ] as const) {
    if (what === 'warm') for (const resource of [small, large]) await stage.place.warm(resource);
    const samples = await interleave({ small: () => measure(small), large: () => measure(large) }, rounds);
    const difference = median(samples.large) - median(samples.small);
    table.add({
      what: `first byte, ${what}: 1 GB | 1 MB`,
      loader: formatMs(samples.large),
      peer: formatMs(samples.small),
      ratio: `${difference >= 0 ? '+' : ''}${difference.toFixed(1)} ms`,
      target: `<= ${TARGET_MS} ms`,
      isMet: difference <= TARGET_MS,
    });
  }
}

function formatMs(values: readonly number[]): string {
  return `${median(values).toFixed(1)} ms (${Math.min(...values).toFixed(1)}-${Math.max(...values).toFixed(1)})`;
}
