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
  const optionsOf = (route: string) => ({ url: loader.url + route, headers: loader.client.authorization, rate: RATE });
  const slice = (route: string) => () =>
    probeOnce(optionsOf(route), () => sleep(SLICE_MS, undefined, { signal: stage.signal }));
  const samples = await interleave(
    {
      health: slice('/health'),
      list: slice('/tasks'),
      history: slice(`/tasks/history?limit=${HISTORY_PAGE}`),
      one: slice(`/tasks/${past.at(-1)?.uid ?? ''}`),
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
