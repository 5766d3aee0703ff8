import path from 'node:path';
import { median } from '../measure.ts';
import type { TaskClient, TaskView } from '../../lab/task-client.ts';
import { monotonicUs } from '../monotonic-us.ts';
import type { SectionContext } from './section.ts';

const PROGRESS_LOADER = path.resolve(import.meta.dirname, '../progress-loader.ts');
/** Often, so that several reports share an event; and seldom, so that each has its own. */
const PATTERNS = [
  { what: 'reports every 0-20 ms', parameters: { seconds: 12, max_gap_ms: 20 } },
  { what: 'reports every 0-500 ms', parameters: { seconds: 12, max_gap_ms: 500 } },
];
const TARGET_MS = 200;

interface Progress {
  readonly progress: number;
  readonly bytes_done: number;
}

/**
 * The time from a report of a provider until a client has an event with as many bytes or more. Every report
 * counts, not only those that got an event of their own.
 */
export async function measureTaskEvents({ stage, table }: SectionContext): Promise<void> {
  const loader = await stage.place.freshLoader({ main: PROGRESS_LOADER, isLoggedIn: false });
  for (const { what, parameters } of PATTERNS) {
    const { latenciesMs, events, stepsBack } = await follow(loader.tasks, parameters);
    const max = Math.max(...latenciesMs);
    table.add({
      what: `report to event, ${what}`,
      loader: `p50 ${median(latenciesMs).toFixed(1)}, max ${max.toFixed(1)} ms (n=${latenciesMs.length})`,
      target: `<= ${TARGET_MS} ms`,
      isMet: max <= TARGET_MS,
    });
    table.add({
      what: `events that went back, ${what}`,
      loader: `${stepsBack} of ${events}`,
      target: '0',
      isMet: stepsBack === 0,
    });
  }
  await stage.place.clearState();
}

async function follow(
  tasks: TaskClient,
  parameters: (typeof PATTERNS)[number]['parameters'],
): Promise<{ latenciesMs: number[]; events: number; stepsBack: number }> {
  const uid = await tasks.begin('ticks', parameters);
  const seen: { readonly bytes: number; readonly arrivedAtUs: number }[] = [];
  let latest: Progress = { progress: 0, bytes_done: 0 };
  let events = 0;
  let stepsBack = 0;
  let end: TaskView | undefined;
  for await (const { event, data } of tasks.events(uid)) {
    const arrivedAtUs = monotonicUs();
    if (event === 'log') continue;
    const present = data as Progress;
    events++;
    if (present.bytes_done < latest.bytes_done || present.progress < latest.progress) stepsBack++;
    latest = present;
    seen.push({ bytes: present.bytes_done, arrivedAtUs });
    if (event === 'end') end = data as TaskView;
  }
  if (end?.status !== 'complete') throw new Error(`the task's last event was ${JSON.stringify(end)}`);
  const latenciesMs = (end.result as number[]).map((reportedUs) => {
    const first = seen.find(({ bytes }) => bytes >= reportedUs);
    if (first === undefined) throw new Error('a report never came');
    return (first.arrivedAtUs - reportedUs) / 1000;
  });
  return { latenciesMs, events, stepsBack };
}
