import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { latencyRow } from '../latency-row.ts';
import type { LoaderUnderTest } from '../loader-under-test.ts';
import { LocalTasks } from '../local-tasks.ts';
import { interleave, median } from '../measure.ts';
import { probeDuring, probeOnce } from '../probe-during.ts';
import type { TaskClient } from '../../lab/task-client.ts';
import { formatTimes } from '../time-row.ts';
import { healthOf, LARGE_LENGTH, MB, TARGET_HEALTH_MS, type SectionContext } from './section.ts';
import { runEmptyTasks, runVerify } from './task-work.ts';

const HISTORY_COUNT = 10_000;
const HISTORY_PAGE = 50;
const RATE = 200;
const SLICE_MS = 2000;
const TARGET_ANSWER_MS = 10;
const COPY_COUNT = 1000;
/** Prometheus asks every few seconds: this is often enough to see the slowest answers. */
const METRICS_RATE = 20;
const TARGET_METRICS_MS = 5;
const EMPTY_COUNT = 1000;
const TARGET_EMPTY_MS = 3000;

/** Measures how soon a Loader with a long history answers, and how soon it runs tasks that have nothing to do. */
export async function measureTaskAnswers(context: SectionContext): Promise<void> {
  const { stage, table } = context;
  const resource = await stage.resource(LARGE_LENGTH);
  await stage.place.warm(resource);
  await stage.place.clearState();
  console.log(`Filling the history with ${HISTORY_COUNT} tasks ...`);
  const past = await LocalTasks.open(stage.place.stateFolder);
  await past.runEmpty(HISTORY_COUNT);
  past.leaveUnfinished();
  past.close();
  await addCopies(path.join(stage.place.cacheFolder, 'copies'));
  const loader = await stage.place.freshLoader({ isLoggedIn: false });
  const { tasks } = loader;
  await measureRequests(context, loader);
  await stage.place.clearCache();
  await measureEmptyTasks(context, tasks);
  const latenciesMs = await probeDuring(healthOf(loader), { run: () => runEmptyTasks(tasks, EMPTY_COUNT) });
  const what = `/health, ${EMPTY_COUNT} empty tasks`;
  table.add(latencyRow({ what, latenciesMs, targetMs: TARGET_HEALTH_MS }));
  await stage.place.clearState();
}

async function measureRequests({ stage, table, rounds }: SectionContext, loader: LoaderUnderTest): Promise<void> {
  const past = (await loader.tasks.history(`?limit=${HISTORY_PAGE}`)).tasks;
  const running = Object.values(await loader.tasks.list()).filter(({ status }) => status === 'in_progress');
  if (running.length !== 1) throw new Error(`${running.length} tasks run, not one`);
  const optionsOf = (route: string, rate = RATE) => ({
    url: loader.url + route,
    headers: loader.client.authorization,
    rate,
  });
  const slice = (route: string, rate?: number) => () =>
    probeOnce(optionsOf(route, rate), () => sleep(SLICE_MS, undefined, { signal: stage.signal }));
  const samples = await interleave(
    {
      health: slice('/health'),
      list: slice('/tasks'),
      history: slice(`/tasks/history?limit=${HISTORY_PAGE}`),
      one: slice(`/tasks/${past.at(-1)?.uid ?? ''}`),
      metrics: slice('/metrics', METRICS_RATE),
    },
    rounds,
  );
  const peerMs = samples.health.flat();
  const title = `${RATE}/s, 1 of ${HISTORY_COUNT} runs | /health`;
  table.add(
    latencyRow({
      what: `/tasks, ${title}`,
      latenciesMs: samples.list.flat(),
      peerMs,
      targetMs: TARGET_ANSWER_MS,
    }),
  );
  table.add(
    latencyRow({ what: `/tasks/history?limit=${HISTORY_PAGE}, the same`, latenciesMs: samples.history.flat(), peerMs }),
  );
  table.add(latencyRow({ what: '/tasks/{uid}, the same', latenciesMs: samples.one.flat(), peerMs }));
  table.add(
    latencyRow({
      what: `/metrics, ${METRICS_RATE}/s, ${HISTORY_COUNT} tasks, ${COPY_COUNT} copies | /health`,
      latenciesMs: samples.metrics.flat(),
      peerMs,
      targetMs: TARGET_METRICS_MS,
    }),
  );
  const verify = (route: string) => () => probeOnce(optionsOf(route), () => runVerify(loader.tasks, LARGE_LENGTH - MB));
  const busy = await interleave({ health: verify('/health'), list: verify('/tasks') }, rounds);
  table.add(
    latencyRow({
      what: `/tasks, ${RATE}/s, while verify reads | /health`,
      latenciesMs: busy.list.flat(),
      peerMs: busy.health.flat(),
    }),
  );
}

/** Copies as an older Loader left them, without records: the cache counts them all the same. */
async function addCopies(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (let index = 0; index < COPY_COUNT; index++) await writeFile(path.join(folder, `${index}.big`), 'a copy');
}

async function measureEmptyTasks({ stage, table, rounds }: SectionContext, tasks: TaskClient): Promise<void> {
  const local = await LocalTasks.open(path.join(stage.folder, 'local-tasks'));
  try {
    const samples = await interleave(
      {
        http: () => time(() => runEmptyTasks(tasks, EMPTY_COUNT)),
        local: () => time(() => local.runEmpty(EMPTY_COUNT)),
      },
      rounds,
    );
    table.add({
      what: `${EMPTY_COUNT} empty tasks over HTTP | without HTTP`,
      loader: formatTimes(samples.http),
      peer: formatTimes(samples.local),
      ratio: (median(samples.http) / median(samples.local)).toFixed(2),
      target: `<= ${TARGET_EMPTY_MS / 1000} s`,
      isMet: median(samples.http) <= TARGET_EMPTY_MS,
    });
  } finally {
    local.close();
  }
}

async function time(work: () => Promise<void>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}
