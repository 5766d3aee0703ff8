import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { readConnections, readOpenFiles } from '../../lab/proc.ts';
import type { BenchResource, Stage } from '../stage.ts';
import { formatTimes } from '../time-row.ts';
import { LARGE_LENGTH, type SectionContext } from './section.ts';

const CANCELLATIONS = 5;
const TARGET_MS = 1000;
/** The share of the bytes that have come when the task is cancelled. */
const MIN_SHARE = 0.05;
const MAX_SHARE = 0.85;
const POLL_MS = 5;
/** A body that still came would show itself at one of these looks. */
const LOOKS = 10;
const LOOK_EVERY_MS = 10;

/** What is left of a prefetch after the response to its cancellation. */
interface Leftovers {
  readonly answerMs: number;
  /** The share of the bytes that had come. */
  readonly share: number;
  readonly unfinishedFiles: number;
  readonly openFiles: number;
  /** Open connections to the CDN right after that response. */
  readonly connections: number;
  /** Those of them that still got bytes. */
  readonly busyConnections: number;
}

/** How soon a running prefetch can be cancelled, and what it leaves behind. */
export async function measureTaskCancellation({ stage, table }: SectionContext): Promise<void> {
  const resource = await stage.resource(LARGE_LENGTH);
  await stage.place.freshLoader();
  const samples: Leftovers[] = [];
  for (let round = 0; round < CANCELLATIONS; round++) samples.push(await cancelOnce(stage, resource));
  const answersMs = samples.map(({ answerMs }) => answerMs);
  const slowest = Math.max(...answersMs);
  table.add({
    what: `DELETE of a prefetch at ${samples.map(({ share }) => `${Math.round(100 * share)}%`).join(' ')}`,
    loader: formatTimes(answersMs),
    target: `<= ${TARGET_MS / 1000} s`,
    isMet: slowest <= TARGET_MS,
  });
  const most = (key: keyof Leftovers) => Math.max(...samples.map((sample) => sample[key]));
  const left = [most('unfinishedFiles'), most('openFiles'), most('busyConnections')];
  table.add({
    what: 'left then: unfinished, open files; busy sockets',
    loader: left.join(', '),
    target: '0',
    isMet: left.every((count) => count === 0),
  });
  table.add({
    what: 'left then: idle sockets to S3',
    loader: samples.map(({ connections }) => connections).join(' '),
  });
}

async function cancelOnce(stage: Stage, resource: BenchResource): Promise<Leftovers> {
  const loader = await stage.place.loader();
  const port = Number(new URL(stage.s3.endpoint).port);
  await stage.place.clearCache();
  const share = MIN_SHARE + Math.random() * (MAX_SHARE - MIN_SHARE);
  const uid = await loader.tasks.beginPrefetch(resource.name);
  const look = () => loader.tasks.details(uid);
  for (let task = await look(); task.bytes_done < share * resource.length; task = await look()) {
    if (task.status !== 'in_progress') throw new Error(`the prefetch is ${task.status}: ${task.error ?? ''}`);
    await sleep(POLL_MS, undefined, { signal: stage.signal });
  }
  // What is looked for below must be there to be seen.
  if (countOpenFiles(stage, loader.pid) === 0) throw new Error('the prefetch has no open file');
  if (readConnections(loader.pid, port).length === 0) throw new Error('the prefetch has no connection');

  const askedAt = performance.now();
  const task = await loader.tasks.cancel(uid);
  const answeredAt = performance.now();
  const present = readConnections(loader.pid, port);
  const openFiles = countOpenFiles(stage, loader.pid);
  const unfinishedFiles = (await readdir(path.join(stage.place.cacheFolder, '.parts'))).length;
  if (task.status !== 'cancelled') throw new Error(`the cancelled task is ${task.status}: ${task.error ?? ''}`);
  const busy = new Set<string>();
  // Idle ones stay for a minute, so that the next transfer needs no handshake.
  for (let look = 0; look < LOOKS; look++) {
    for (const { inode, unread } of readConnections(loader.pid, port)) if (unread > 0) busy.add(inode);
    await sleep(LOOK_EVERY_MS, undefined, { signal: stage.signal });
  }
  return {
    answerMs: answeredAt - askedAt,
    share: task.bytes_done / resource.length,
    unfinishedFiles,
    openFiles,
    connections: present.length,
    busyConnections: busy.size,
  };
}

function countOpenFiles(stage: Stage, pid: number): number {
  // The Loader holds the lock of its folder as long as it runs.
  const files = readOpenFiles(pid).filter((file) => file.startsWith(stage.place.cacheFolder));
  return files.filter((file) => path.basename(file) !== 'cache.lock').length;
}
