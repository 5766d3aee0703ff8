import { latencyRow } from '../latency-row.ts';
import { probeDuring } from '../probe-during.ts';
import { measurePeak, peakRow } from './measure-peak.ts';
import { healthOf, LARGE_LENGTH, MB, TARGET_HEALTH_MS, type SectionContext } from './section.ts';
import { runVerify } from './task-work.ts';

/** What others notice of a verification of 2 GB. */
export async function measureTaskCost({ stage, table }: SectionContext): Promise<void> {
  const resource = await stage.resource(LARGE_LENGTH);
  const loader = await stage.place.freshLoader();
  await stage.place.warm(resource);
  const verify = () => runVerify(loader.tasks, resource.length - MB);
  const latenciesMs = await probeDuring(healthOf(loader), { run: verify });
  table.add(latencyRow({ what: '/health, verify of 2 GB', latenciesMs, targetMs: TARGET_HEALTH_MS }));
  const peak = await measurePeak(stage, resource, (fresh) => runVerify(fresh.tasks, resource.length - MB));
  table.add(peakRow('memory, verify of 2 GB', peak));
}
