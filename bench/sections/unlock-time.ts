import { interleave, median } from '../measure.ts';
import { DockerLoad } from '../peers/docker-load.ts';
import { readCpuSeconds } from '../../lab/proc.ts';
import { formatTimes, timeRow } from '../time-row.ts';
import type { ImageArchive } from '../image-archive.ts';
import type { UnlockStage } from '../unlock-stage.ts';
import { canRunEngine, SMALL_ARCHIVE_LENGTH, type Section, type SectionContext } from './section.ts';

export const unlockTime: Section = { title: 'unlock of seven images over one base, into a private Docker engine', run };

/** Each of them takes minutes. */
const MAX_ROUNDS = 3;
const TARGET_PRESENT_MS = 500;

/** What one contender took. */
interface Sample {
  readonly wallMs: number;
  readonly engineCpuSeconds: number;
  /** The Loader's; a peer has none. */
  readonly loaderCpuSeconds: number;
}

async function run(context: SectionContext): Promise<void> {
  if (!canRunEngine()) return;
  const unlocking = await context.stage.unlockStage();
  const peer = await DockerLoad.create(unlocking.engine.host, context.stage.signal);
  console.log('Making the archives ...');
  const archive = await unlocking.archive(context.archiveLength);
  console.log(`An archive of ${Math.round(archive.length / 1e6)} MB`);
  await warmUp(unlocking, peer);
  await measureAllMissing(context, unlocking, peer, archive);
  await measureOneMissing(context, unlocking, peer, archive);
  await measureNoneMissing(context, unlocking, archive);
  await unlocking.stopLoader();
}

/** Each contender once with another archive: with this one, it would take minutes. */
async function warmUp(unlocking: UnlockStage, peer: DockerLoad): Promise<void> {
  const small = await unlocking.archive(SMALL_ARCHIVE_LENGTH);
  for (const contender of [
    () => unlockFresh(unlocking, small),
    () => loadByPeer(unlocking, () => peer.loadPlain(small)),
    () => loadByPeer(unlocking, () => peer.loadEncrypted(small)),
  ]) {
    await unlocking.removeImages();
    await contender();
    await unlocking.assertLoaded(small);
  }
}

async function measureAllMissing(
  { table, rounds }: SectionContext,
  unlocking: UnlockStage,
  peer: DockerLoad,
  archive: ImageArchive,
): Promise<void> {
  const afterRemoval = removing(() => unlocking.removeImages(), unlocking, archive);
  const samples = await interleave(
    {
      loader: afterRemoval(() => unlockFresh(unlocking, archive)),
      plain: afterRemoval(() => loadByPeer(unlocking, () => peer.loadPlain(archive))),
      encrypted: afterRemoval(() => loadByPeer(unlocking, () => peer.loadEncrypted(archive))),
    },
    Math.min(rounds, MAX_ROUNDS),
    { isWarm: true },
  );
  addRows(table, 'all missing', samples.loader, [
    { name: `openssl | ${peer.name}`, samples: samples.encrypted, target: 0.65, bytes: archive.length },
    { name: `${peer.name}, plain tar`, samples: samples.plain, target: 0.75, bytes: archive.length },
  ]);
}

/** Makes a contender remove images first, which is not timed, and bring back every one of them. */
function removing(remove: () => Promise<unknown>, unlocking: UnlockStage, archive: ImageArchive) {
  return (contender: () => Promise<Sample>) => async () => {
    await remove();
    const sample = await contender();
    await unlocking.assertLoaded(archive);
    return sample;
  };
}

async function measureOneMissing(
  { table, rounds }: SectionContext,
  unlocking: UnlockStage,
  peer: DockerLoad,
  archive: ImageArchive,
): Promise<void> {
  const afterRemoval = removing(() => unlocking.removeOneImage(archive), unlocking, archive);
  const samples = await interleave(
    {
      loader: afterRemoval(() => unlockFresh(unlocking, archive)),
      encrypted: afterRemoval(() => loadByPeer(unlocking, () => peer.loadEncrypted(archive))),
    },
    Math.min(rounds, MAX_ROUNDS),
    { isWarm: true },
  );
  addRows(table, '1 of 7 missing', samples.loader, [
    { name: `openssl | ${peer.name}`, samples: samples.encrypted, target: 0.45 },
  ]);
}

async function measureNoneMissing(
  { table, rounds }: SectionContext,
  unlocking: UnlockStage,
  archive: ImageArchive,
): Promise<void> {
  await unlocking.assertLoaded(archive);
  const samples = await interleave(
    {
      // In this order, since the first one writes the receipt of the second.
      withoutReceipt: async () => (await unlockFresh(unlocking, archive)).wallMs,
      withReceipt: async () => await (await unlocking.freshLoader(archive)).unlock(),
    },
    rounds,
  );
  for (const [what, timesMs] of [
    ['by the receipt', samples.withReceipt],
    ['by the index (no receipt)', samples.withoutReceipt],
  ] as const) {
    table.add({
      what: `unlock, all there, ${what}`,
      loader: formatTimes(timesMs),
      target: `<= ${TARGET_PRESENT_MS / 1000} s`,
      isMet: median(timesMs) <= TARGET_PRESENT_MS,
    });
  }
}

/** By a fresh process that knows of no unlock before. */
async function unlockFresh(unlocking: UnlockStage, archive: ImageArchive): Promise<Sample> {
  await unlocking.removeReceipt();
  const loader = await unlocking.freshLoader(archive);
  const engineBefore = readCpuSeconds(unlocking.engine.pid);
  const loaderBefore = readCpuSeconds(loader.process.pid);
  const wallMs = await loader.unlock();
  return {
    wallMs,
    engineCpuSeconds: readCpuSeconds(unlocking.engine.pid) - engineBefore,
    loaderCpuSeconds: readCpuSeconds(loader.process.pid) - loaderBefore,
  };
}

async function loadByPeer(unlocking: UnlockStage, load: () => Promise<number>): Promise<Sample> {
  await unlocking.stopLoader();
  const engineBefore = readCpuSeconds(unlocking.engine.pid);
  const wallMs = await load();
  return { wallMs, engineCpuSeconds: readCpuSeconds(unlocking.engine.pid) - engineBefore, loaderCpuSeconds: 0 };
}

function addRows(
  table: SectionContext['table'],
  situation: string,
  loader: readonly Sample[],
  peers: readonly { name: string; samples: readonly Sample[]; target: number; bytes?: number }[],
): void {
  const wallMs = (samples: readonly Sample[]) => samples.map((sample) => sample.wallMs);
  const engineCpu = (samples: readonly Sample[]) => median(samples.map((sample) => sample.engineCpuSeconds));
  for (const { name, samples, target, bytes } of peers) {
    table.add(
      timeRow({
        what: `unlock, ${situation} | ${name}`,
        ...(bytes === undefined ? {} : { bytes }),
        loaderMs: wallMs(loader),
        peerMs: wallMs(samples),
        target: { kind: 'time', value: target },
      }),
    );
  }
  const loaderCpu = median(loader.map((sample) => sample.loaderCpuSeconds));
  for (const { name, samples } of peers) {
    table.add({
      what: `CPU, ${situation} | ${name}`,
      loader: `engine ${engineCpu(loader).toFixed(1)} s, Loader ${loaderCpu.toFixed(1)} s`,
      peer: `engine ${engineCpu(samples).toFixed(1)} s`,
      ratio: (engineCpu(loader) / engineCpu(samples)).toFixed(2),
    });
  }
}
