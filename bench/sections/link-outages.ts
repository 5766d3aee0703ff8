import { prefetchOf } from '../../lab/task-client.ts';
import type { LinkStage } from '../link-stage.ts';
import type { BenchResource } from '../stage.ts';
import type { Table } from '../table.ts';
import { assertDigest } from './section.ts';

/** Each link is cut when a third of the bytes has come. */
const CUT_AT = 1 / 3;
/** What may come over the link: TLS and HTTP take less than 1 %, and the rest may be fetched twice. */
const MAX_BYTES = 1.02;

/** Cuts the link once in a load and once in a prefetch, so that nothing passes, and so that connections break. */
export async function measureOutages(
  table: Table,
  name: string,
  linked: LinkStage,
  resource: BenchResource,
): Promise<void> {
  const loader = await linked.place.loader();
  const works = {
    load: async () => assertDigest('a load with an outage', await loader.loadDigest(resource.name), resource.sha256),
    prefetch: () => loader.tasks.complete('prefetch', prefetchOf(resource.name)),
  };
  for (const [kind, seconds] of [
    ['load', 5],
    ['prefetch', 20],
  ] as const) {
    for (const outage of ['silent', 'reset'] as const) {
      await linked.place.clearCache();
      const { wallMs, bytes } = await linked.cut(outage, CUT_AT * resource.length, 1000 * seconds, works[kind]);
      await linked.place.untilCached(resource.name);
      assertDigest('a copy after an outage', await loader.loadDigest(resource.name), resource.sha256);
      table.add({
        what: `${name}, ${kind}, ${seconds} s ${outage}: bytes`,
        loader: `${(bytes / resource.length).toFixed(4)} of them, ${(wallMs / 1000).toFixed(1)} s`,
        target: `<= ${MAX_BYTES}`,
        isMet: bytes <= MAX_BYTES * resource.length,
      });
    }
  }
}
