import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { HealthProbe } from '../health-probe.ts';
import { percentile } from '../measure.ts';
import { LARGE_LENGTH, type Section, type SectionContext } from './section.ts';

export const health: Section = { title: 'GET /health, 100 times a second, while 2 GB move', run };

const TARGET_MS = 25;
/** The work is repeated until it has taken this long: of fewer answers, the 99th percentile would be nothing but the slowest. */
const MIN_PROBE_MS = 5000;

async function run({ stage, table }: SectionContext): Promise<void> {
  const resource = await stage.resource(LARGE_LENGTH);
  const loader = await stage.freshLoader();
  const load = async () => {
    await loader.load(resource.name, resource.length);
  };
  const cases = [
    { what: 'idle', work: () => sleep(MIN_PROBE_MS, undefined, { signal: stage.signal }) },
    { what: 'warm load of 2 GB', prepare: () => stage.warm(resource), work: load },
    {
      what: 'cold load of 2 GB',
      prepare: () => stage.clearCache(),
      work: async () => {
        await load();
        await stage.untilCached(resource.name);
      },
    },
    {
      what: 'upload of 2 GB',
      work: async () => {
        await loader.upload(`uploaded-${resource.name}`, resource.plaintextPath);
      },
    },
  ];
  for (const { what, prepare, work } of cases) {
    const latenciesMs: number[] = [];
    let probedMs = 0;
    while (probedMs < MIN_PROBE_MS) {
      await prepare?.();
      const startedAt = performance.now();
      const probe = await HealthProbe.start(loader.url);
      try {
        await work();
      } finally {
        latenciesMs.push(...(await probe.stop()));
      }
      probedMs += performance.now() - startedAt;
    }
    const p99 = percentile(latenciesMs, 0.99);
    table.add({
      what: `/health, ${what}`,
      loader: `p99 ${p99.toFixed(1)} ms, max ${Math.max(...latenciesMs).toFixed(1)} ms (n=${latenciesMs.length})`,
      ...(what === 'idle' ? {} : { target: `<= ${TARGET_MS} ms`, isMet: p99 <= TARGET_MS }),
    });
  }
}
