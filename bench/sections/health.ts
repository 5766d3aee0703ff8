import { setTimeout as sleep } from 'node:timers/promises';
import { latencyRow } from '../latency-row.ts';
import { probeDuring, type ProbedWork } from '../probe-during.ts';
import { healthOf, LARGE_LENGTH, TARGET_HEALTH_MS, type Section, type SectionContext } from './section.ts';

export const health: Section = { title: 'GET /health, 100 times a second, while 2 GB move', run };

async function run({ stage, table }: SectionContext): Promise<void> {
  const resource = await stage.resource(LARGE_LENGTH);
  const loader = await stage.place.freshLoader();
  const load = async () => {
    await loader.load(resource.name, resource.length);
  };
  const cases: readonly ({ readonly what: string } & ProbedWork)[] = [
    { what: 'idle', run: () => sleep(5000, undefined, { signal: stage.signal }) },
    { what: 'warm load of 2 GB', prepare: () => stage.place.warm(resource), run: load },
    {
      what: 'cold load of 2 GB',
      prepare: () => stage.place.clearCache(),
      run: async () => {
        await load();
        await stage.place.untilCached(resource.name);
      },
    },
    {
      what: 'upload of 2 GB',
      run: async () => {
        const name = `uploaded-${resource.name}`;
        await loader.upload(name, resource.plaintextPath);
        await stage.place.untilCached(name);
      },
    },
  ];
  for (const { what, ...work } of cases) {
    const latenciesMs = await probeDuring(healthOf(loader), work);
    const target = what === 'idle' ? {} : { targetMs: TARGET_HEALTH_MS };
    table.add(latencyRow({ what: `/health, ${what}`, latenciesMs, ...target }));
  }
}
