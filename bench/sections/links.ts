import { FAR_LINK, SLOW_LINK, type LinkShape } from '../../lab/links/link-shape.ts';
import type { LinkStage, LinkTransfer } from '../link-stage.ts';
import { interleave, median } from '../measure.ts';
import { AwsCli } from '../peers/aws-cli.ts';
import { Rclone } from '../peers/rclone.ts';
import type { BenchResource } from '../stage.ts';
import type { Row } from '../table.ts';
import { timeRow } from '../time-row.ts';
import { measureOutages } from './link-outages.ts';
import { assertDigest, MB, TIMED_LENGTH, type Section, type SectionContext } from './section.ts';

/** A link, what is moved over it, and the least fraction of its rate that counts as good. */
interface Way {
  readonly name: string;
  readonly shape: LinkShape;
  readonly length: number;
  readonly target: number;
  /** Whether it is also cut, once in each way. */
  readonly hasOutages: boolean;
}

const WAYS: readonly Way[] = [
  { name: 'far link', shape: FAR_LINK, length: TIMED_LENGTH, target: 0.85, hasOutages: true },
  { name: 'slow link', shape: SLOW_LINK, length: 30 * MB, target: 0.9, hasOutages: false },
];
/** For all connections of one transfer. */
const MAX_HANDSHAKES = 8;

export const links: Section = {
  title: 'cold loads and uploads over TLS, a far link (50 ms, 400 Mbit/s) and a slow one (200 ms, 20 Mbit/s)',
  run,
};

async function run(context: SectionContext): Promise<void> {
  const { stage } = context;
  for (const way of WAYS) {
    const resource = await stage.resource(way.length);
    await new AwsCli(stage, resource, await stage.ciphertext(resource)).seed();
    const linked = await stage.linkStage(way.shape);
    try {
      await measureLoads(context, way, linked, resource);
      await measureUploads(context, way, linked, resource);
      if (way.hasOutages) await measureOutages(context.table, way.name, linked, resource);
    } finally {
      await linked.stop();
    }
  }
}

async function measureLoads(
  { stage, table, rounds }: SectionContext,
  way: Way,
  linked: LinkStage,
  resource: BenchResource,
): Promise<void> {
  const ciphertext = await stage.ciphertext(resource);
  const aws = new AwsCli(stage, resource, ciphertext, linked);
  const rclone = new Rclone(stage, resource, ciphertext, linked);
  const loader = await linked.place.loader();
  const load = async () => {
    await linked.place.clearCache();
    const transfer = await linked.measure('down', () => loader.load(resource.name, resource.length));
    await linked.place.untilCached(resource.name);
    return transfer;
  };
  const first = await load();
  await linked.place.clearCache();
  assertDigest('a cold load over a link', await loader.loadDigest(resource.name), resource.sha256);
  await linked.place.untilCached(resource.name);
  assertDigest("rclone's output", await rclone.downloadDigest(), resource.sha256);

  const samples = await interleave(
    {
      loader: load,
      aws: () => linked.measure('down', () => aws.download()),
      rclone: () => linked.measure('down', () => rclone.download()),
    },
    rounds,
    { isWarm: true },
  );
  const what = `${way.name}, cold load`;
  table.add(fractionRow(`${what}: of its rate | aws`, way, samples.loader, samples.aws));
  table.add(comparison(`${what} | aws s3 cp | openssl`, way, samples.loader, samples.aws));
  table.add(comparison(`${what} | rclone cat | openssl`, way, samples.loader, samples.rclone));
  table.add(handshakeRow(what, first, samples.loader));
}

async function measureUploads(
  { stage, table, rounds }: SectionContext,
  way: Way,
  linked: LinkStage,
  resource: BenchResource,
): Promise<void> {
  const aws = new AwsCli(stage, resource, await stage.ciphertext(resource), linked);
  const loader = await linked.place.loader();
  const name = `linked-${resource.name}`;
  const upload = async () => {
    const transfer = await linked.measure('up', () => loader.upload(name, resource.plaintextPath));
    await linked.place.untilCached(name);
    await linked.untilQuiet();
    return transfer;
  };
  const first = await upload();
  assertDigest('an upload over a link', await loader.loadDigest(name), resource.sha256);

  const samples = await interleave({ loader: upload, aws: () => linked.measure('up', () => aws.upload()) }, rounds, {
    isWarm: true,
  });
  const what = `${way.name}, upload`;
  table.add(fractionRow(`${what}: of its rate | aws`, way, samples.loader, samples.aws));
  table.add(comparison(`${what} | openssl | aws s3 cp -`, way, samples.loader, samples.aws));
  table.add(handshakeRow(what, first, samples.loader));
}

function fractionRow(
  what: string,
  { target }: Way,
  ours: readonly LinkTransfer[],
  theirs: readonly LinkTransfer[],
): Row {
  const format = (transfers: readonly LinkTransfer[]) => {
    const values = transfers.map(({ fraction }) => fraction);
    return `${median(values).toFixed(2)} (${Math.min(...values).toFixed(2)}-${Math.max(...values).toFixed(2)})`;
  };
  const fraction = median(ours.map((transfer) => transfer.fraction));
  return {
    what,
    loader: format(ours),
    peer: format(theirs),
    ratio: fraction.toFixed(2),
    target: `>= ${target}`,
    isMet: fraction >= target,
  };
}

function comparison(
  what: string,
  { length }: Way,
  ours: readonly LinkTransfer[],
  theirs: readonly LinkTransfer[],
): Row {
  const times = (transfers: readonly LinkTransfer[]) => transfers.map(({ wallMs }) => wallMs);
  const target = { kind: 'time', value: 1 } as const;
  return timeRow({ what, bytes: length, loaderMs: times(ours), peerMs: times(theirs), target });
}

function handshakeRow(what: string, first: LinkTransfer, later: readonly LinkTransfer[]): Row {
  const most = Math.max(...later.map(({ handshakes }) => handshakes));
  return {
    what: `${what}: handshakes`,
    loader: `${first.handshakes} at first, at most ${most} later`,
    target: `<= ${MAX_HANDSHAKES}, 0`,
    isMet: first.handshakes <= MAX_HANDSHAKES && most === 0,
  };
}
