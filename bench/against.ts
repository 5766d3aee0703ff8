import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { readMemory } from '../lab/proc.ts';
import { shippedFolder, shippedMain } from '../lab/shipped-folder.ts';
import { prefetchOf } from '../lab/task-client.ts';
import { checkOut } from './checkout.ts';
import { ComparisonTable, type Comparison } from './comparison-table.ts';
import type { LoaderPlace } from './loader-place.ts';
import { interleave } from './measure.ts';
import type { SectionLetter } from './options.ts';
import { canRunEngine, MB, SMALL_ARCHIVE_LENGTH, TIMED_LENGTH } from './sections/section.ts';
import { runEmptyTasks, runVerify } from './sections/task-work.ts';
import type { Stage } from './stage.ts';

export interface AgainstOptions {
  readonly commit: string;
  readonly sections: readonly SectionLetter[];
  readonly rounds: number;
  /** Bytes of the image archive, about. */
  readonly archiveLength: number;
}

const MIB = 1024 * 1024;
/** For what start and login leave to be done. */
const SETTLE_MS = 500;
const SMALL_LOADS = 50;
const EMPTY_TASKS = 300;

interface Context extends AgainstOptions {
  readonly stage: Stage;
  readonly table: ComparisonTable;
  /** Two Loaders that run side by side, of which one works at a time. */
  readonly here: LoaderPlace;
  readonly there: LoaderPlace;
}

type Work = (place: LoaderPlace) => Promise<number>;

/** Measures this checkout beside another commit, both as they ship and with the Node of this one. */
export async function runAgainst(stage: Stage, options: AgainstOptions): Promise<void> {
  const { signal } = stage;
  console.log(`Building ${options.commit} beside ...`);
  const project = path.join(stage.folder, 'against');
  await checkOut(options.commit, project, signal);
  const [hereMain, thereMain] = [await shippedFolder({ signal }), await shippedFolder({ project, signal })].map(
    shippedMain,
  ) as [string, string];
  const table = new ComparisonTable((line) => console.log(line));
  const context = {
    ...options,
    stage,
    table,
    here: stage.newPlace('here', hereMain),
    there: stage.newPlace('there', thereMain),
  };
  const { here, there, sections } = context;
  try {
    await measureStart(context);
    if (sections.includes('a')) await measureWarmLoads(context);
    if (sections.includes('b')) await measureColdLoads(context);
    if (sections.includes('c')) await measureUploads(context);
    if (sections.includes('i')) await measureTasks(context);
    await here.stopLoader();
    await there.stopLoader();
    if (sections.includes('g') && canRunEngine()) await measureUnlocks(context);
  } finally {
    await here.stopLoader();
    await there.stopLoader();
  }
  console.log('');
  table.printAll();
}

/** Adds a row of the same work in both places. */
async function compare(context: Context, what: string, work: Work, unit: Comparison['unit'] = 'ms'): Promise<void> {
  const { here, there, rounds, table } = context;
  const samples = await interleave({ here: () => work(here), there: () => work(there) }, rounds, { alternates: true });
  table.add({ what, ...samples, unit });
}

async function measureStart(context: Context): Promise<void> {
  await compare(context, 'start, until it listens', async (place) => {
    await place.stopLoader();
    return await time(() => place.freshLoader({ isLoggedIn: false }));
  });
  const readIdle: Work = async (place) => {
    const loader = await place.freshLoader();
    await sleep(SETTLE_MS, undefined, { signal: context.stage.signal });
    return readMemory(loader.pid).present / MIB;
  };
  await compare(context, 'resident memory, idle after a login', readIdle, 'MiB');
}

async function measureWarmLoads(context: Context): Promise<void> {
  const { stage, here, there } = context;
  const large = await stage.resource(TIMED_LENGTH);
  const small = await stage.resource(MB);
  for (const resource of [large, small]) {
    for (const place of [here, there]) await place.warm(resource);
  }
  await compare(context, 'warm load of 300 MB', async (place) => {
    return (await (await place.loader()).load(large.name, large.length)).wallMs;
  });
  await compare(context, `warm loads of 1 MB, ${SMALL_LOADS} in a row`, async (place) => {
    const loader = await place.loader();
    let totalMs = 0;
    for (let count = 0; count < SMALL_LOADS; count++) totalMs += (await loader.load(small.name, small.length)).totalMs;
    return totalMs;
  });
}

async function measureColdLoads(context: Context): Promise<void> {
  const { name, length } = await context.stage.resource(TIMED_LENGTH);
  await compare(context, 'cold load of 300 MB', async (place) => {
    await place.clearCache();
    const { wallMs } = await (await place.loader()).load(name, length);
    await place.untilCached(name);
    return wallMs;
  });
}

async function measureUploads(context: Context): Promise<void> {
  const { name, plaintextPath } = await context.stage.resource(TIMED_LENGTH);
  await compare(context, 'upload of 300 MB', async (place) => {
    const ownName = `${place === context.here ? 'here' : 'there'}-${name}`;
    const { wallMs } = await (await place.loader()).upload(ownName, plaintextPath);
    await place.untilCached(ownName);
    return wallMs;
  });
}

async function measureTasks(context: Context): Promise<void> {
  const { stage } = context;
  const resource = await stage.resource(TIMED_LENGTH);
  const tasksOf = async (place: LoaderPlace) => (await place.loader()).tasks;
  await compare(context, 'task: prefetch of 300 MB', async (place) => {
    await place.clearCache();
    const tasks = await tasksOf(place);
    const wallMs = await time(() => tasks.complete('prefetch', prefetchOf(resource.name)));
    await place.untilCached(resource.name);
    return wallMs;
  });
  await compare(context, 'task: verify of 300 MB', async (place) => {
    const tasks = await tasksOf(place);
    return await time(() => runVerify(tasks, resource.length - MB));
  });
  await compare(context, `tasks: ${EMPTY_TASKS} empty ones over HTTP`, async (place) => {
    await place.clearCache();
    const tasks = await tasksOf(place);
    return await time(() => runEmptyTasks(tasks, EMPTY_TASKS));
  });
}

async function measureUnlocks(context: Context): Promise<void> {
  const { stage, archiveLength } = context;
  const unlocking = await stage.unlockStage();
  console.log('Making the archives ...');
  const small = await unlocking.archive(SMALL_ARCHIVE_LENGTH);
  const archive = archiveLength === SMALL_ARCHIVE_LENGTH ? small : await unlocking.archive(archiveLength);
  const megabytes = Math.round(archive.length / 1e6);
  const unlock = async ({ main }: LoaderPlace) => {
    const loader = await unlocking.freshLoader(archive, { main });
    return await loader.unlock();
  };
  await compare(context, `unlock of ${megabytes} MB, all missing`, async (place) => {
    await unlocking.removeImages();
    await unlocking.removeReceipt();
    return await unlock(place);
  });
  await compare(context, `unlock of ${megabytes} MB, 1 of 7 missing`, async (place) => {
    await unlocking.removeOneImage(archive);
    await unlocking.removeReceipt();
    return await unlock(place);
  });
  await compare(context, 'unlock, all there, by the index', async (place) => {
    await unlocking.removeReceipt();
    return await unlock(place);
  });
  await compare(context, 'unlock, all there, by the receipt', unlock);
  await unlocking.stopLoader();
}

/** In ms. */
async function time(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}
