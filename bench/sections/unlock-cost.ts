import path from 'node:path';
import { open, truncate } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ErrorCode } from '../../src/errors.ts';
import { EngineProxy } from '../../lab/faults/engine-proxy.ts';
import type { ImageArchive } from '../image-archive.ts';
import { latencyRow } from '../latency-row.ts';
import { median } from '../measure.ts';
import { MemoryWatch } from '../memory-watch.ts';
import { probeOnce } from '../probe-during.ts';
import { readWrittenBytes } from '../../lab/proc.ts';
import type { UnlockStage } from '../unlock-stage.ts';
import {
  canRunEngine,
  healthOf,
  MB,
  SMALL_ARCHIVE_LENGTH,
  TARGET_HEALTH_MS,
  type Section,
  type SectionContext,
} from './section.ts';

export const unlockCost: Section = { title: 'what an unlock of seven images takes, and what it refuses', run };

const MIB = 1024 * 1024;
const TARGET_MEMORY_MIB = 160;
/** As for the other work: the garbage collector's moods. */
const TARGET_GROWTH_MIB = 32;
const TARGET_WRITTEN_MIB = 1;
const TARGET_REFUSAL_MS = 100;
/** For what the start left to be done. */
const SETTLE_MS = 500;

async function run(context: SectionContext): Promise<void> {
  if (!canRunEngine()) return;
  const unlocking = await context.stage.unlockStage();
  console.log('Making the archives ...');
  const archive = await unlocking.archive(context.archiveLength);
  const small = await unlocking.archive(SMALL_ARCHIVE_LENGTH);
  await measureMemory(context, unlocking, small, archive);
  await measureHealth(context, unlocking, archive);
  await measureRefusals(context, unlocking, archive, small);
  await unlocking.stopLoader();
}

async function measureMemory(
  { table, stage }: SectionContext,
  unlocking: UnlockStage,
  ...archives: readonly ImageArchive[]
): Promise<void> {
  const peaksMib: number[] = [];
  for (const archive of archives) {
    const title = `unlock of ${Math.round(archive.length / MB)} MB, all missing`;
    await unlocking.removeImages();
    await unlocking.removeReceipt();
    const loader = await unlocking.freshLoader(archive);
    await sleep(SETTLE_MS, undefined, { signal: stage.signal });
    const { pid } = loader.process;
    const writtenBefore = readWrittenBytes(pid);
    using watch = new MemoryWatch(pid);
    await loader.unlock();
    const { sampled, highWater } = watch.read();
    const writtenMib = (readWrittenBytes(pid) - writtenBefore) / MIB;
    await unlocking.assertLoaded(archive);
    const peakMib = Math.max(sampled, highWater) / MIB;
    peaksMib.push(peakMib);
    table.add({
      what: `memory, ${title}`,
      loader: `${(sampled / MIB).toFixed(0)} MiB sampled, ${(highWater / MIB).toFixed(0)} MiB VmHWM`,
      target: `<= ${TARGET_MEMORY_MIB} MiB`,
      isMet: peakMib <= TARGET_MEMORY_MIB,
    });
    table.add({
      what: `written to disk, ${title}`,
      loader: `${writtenMib.toFixed(3)} MiB`,
      target: `< ${TARGET_WRITTEN_MIB} MiB`,
      isMet: writtenMib < TARGET_WRITTEN_MIB,
    });
  }
  const growthMib = (peaksMib.at(-1) ?? NaN) - (peaksMib[0] ?? NaN);
  table.add({
    what: 'memory, unlock: growth from the small archive',
    loader: `${growthMib.toFixed(0)} MiB`,
    target: `<= ${TARGET_GROWTH_MIB} MiB`,
    isMet: growthMib <= TARGET_GROWTH_MIB,
  });
}

async function measureHealth({ table }: SectionContext, unlocking: UnlockStage, archive: ImageArchive): Promise<void> {
  await unlocking.removeImages();
  await unlocking.removeReceipt();
  const loader = await unlocking.freshLoader(archive);
  const latenciesMs = await probeOnce(healthOf(loader.process), async () => {
    await loader.unlock();
  });
  await unlocking.assertLoaded(archive);
  table.add(latencyRow({ what: '/health, unlock, all missing', latenciesMs, targetMs: TARGET_HEALTH_MS }));
}

async function measureRefusals(
  { table, rounds }: SectionContext,
  unlocking: UnlockStage,
  archive: ImageArchive,
  small: ImageArchive,
): Promise<void> {
  const cases: readonly { what: string; code: ErrorCode; damage?: Damage; hasRightKey?: boolean }[] = [
    { what: 'wrong key', code: 'archive_key_wrong', hasRightKey: false },
    // One such flip in 256 makes a padding that is good, too: then this bench ends here, and must be run again.
    { what: 'a bit flipped in the last block', code: 'archive_invalid', damage: flipByte(-1) },
    { what: 'cut by 4 KiB', code: 'archive_invalid', damage: cut(4096) },
    // The fourth block of the first header: its name.
    { what: 'first header broken', code: 'archive_invalid', damage: flipByte(16 + 3 * 16) },
  ];
  await unlocking.removeImages();
  const proxy = await EngineProxy.start(path.join(unlocking.folder, 'proxy.sock'), unlocking.engine.host);
  try {
    for (const { what, code, damage, hasRightKey = true } of cases) {
      const mend = await damage?.(archive.envelopePath);
      const timesMs: number[] = [];
      for (let round = 0; round < rounds; round++) {
        await unlocking.removeReceipt();
        const loader = await unlocking.freshLoader(archive, { dockerHost: proxy.host, hasRightKey });
        const { status, wallMs } = await loader.tryUnlock();
        if (status.code !== code) throw new Error(`${what}: the unlock ended as ${status.state} ${status.code ?? ''}`);
        timesMs.push(wallMs);
      }
      await mend?.();
      const slowest = Math.max(...timesMs);
      table.add({
        what: `refused: ${what}`,
        loader: `${median(timesMs).toFixed(0)} ms (at most ${slowest.toFixed(0)}), ${proxy.loads.length} loads begun`,
        target: `<= ${TARGET_REFUSAL_MS} ms`,
        isMet: slowest <= TARGET_REFUSAL_MS && proxy.loads.length === 0,
      });
    }
    // A proxy that counts no load would always find 0.
    await (await unlocking.freshLoader(small, { dockerHost: proxy.host })).unlock();
    await unlocking.assertLoaded(small);
    if (proxy.loads.length === 0) throw new Error('the proxy saw nothing of an unlock that went well');
  } finally {
    await unlocking.stopLoader();
    await proxy.stop();
  }
}

/** Damages the file under a path. The function that it returns mends it. */
type Damage = (filePath: string) => Promise<() => Promise<void>>;

/** Flips a bit of the byte at `at`; from the end, where that is negative. */
function flipByte(at: number): Damage {
  const flip = async (filePath: string) => {
    const file = await open(filePath, 'r+');
    try {
      const position = at < 0 ? (await file.stat()).size + at : at;
      const byte = Buffer.alloc(1);
      await file.read(byte, 0, 1, position);
      byte.writeUInt8(byte.readUInt8() ^ 1);
      await file.write(byte, 0, 1, position);
    } finally {
      await file.close();
    }
  };
  return async (filePath) => {
    await flip(filePath);
    return () => flip(filePath);
  };
}

function cut(length: number): Damage {
  return async (filePath) => {
    const file = await open(filePath, 'r');
    const end = Buffer.alloc(length);
    const start = (await file.stat()).size - length;
    await file.read(end, 0, length, start);
    await file.close();
    await truncate(filePath, start);
    return async () => {
      const mended = await open(filePath, 'a');
      await mended.writeFile(end);
      await mended.close();
    };
  };
}
