import { setTimeout as sleep } from 'node:timers/promises';
import { happens } from '../async/abort.ts';
import type { Task, TaskLogLine } from './task.ts';

/**
 * A position in the events of a task: the number of log lines before it, and of progress reports since the last of these
 * lines. Its text form, `lines.reports`, is the id of an event. Lines are stored, so a position is valid after a restart.
 */
export interface EventPosition {
  readonly lines: number;
  readonly reports: number;
}

export type TaskEvent =
  | { readonly event: 'log'; readonly id: string; readonly data: TaskLogLine }
  | { readonly event: 'progress' | 'end'; readonly id: string; readonly data: Task };

/** A task that a reader can follow: it runs, or it has ended. */
export interface FollowedTask {
  readonly task: Task;
  /** The number of lines in the log. */
  readonly lines: number;
  /** Resolves at the next change; undefined where the task can't change. */
  readonly changed: Promise<unknown> | undefined;
}

/** The position before the first event. */
export const FIRST_POSITION: EventPosition = { lines: 0, reports: 0 };

/** The shortest time from a progress event to the next event, in ms. */
const PROGRESS_INTERVAL_MS = 50;

const PROGRESS_FIELDS = ['progress', 'bytesDone', 'bytesTotal', 'waitingFor'] as const satisfies (keyof Task)[];

/** Reads the id of an event; undefined for any other text. */
export function parseEventPosition(id: string): EventPosition | undefined {
  const match = /^(\d{1,9})\.(\d{1,9})$/.exec(id);
  return match === null ? undefined : { lines: Number(match[1]), reports: Number(match[2]) };
}

/** Tells whether `position` is after the end of an ended task with so many `lines`: the end counts as one more line. */
export function isPastEnd(position: EventPosition, lines: number): boolean {
  return position.lines === lines + 1;
}

/** Yields the events of a task after `position`, and returns after the task's end or when `signal` aborts. */
export async function* followTask(
  followed: FollowedTask,
  position: EventPosition,
  readLines: (after: number) => readonly TaskLogLine[],
  signal: AbortSignal,
): AsyncGenerator<TaskEvent, void, undefined> {
  const end = followed.lines + (followed.task.status === 'in_progress' ? 0 : 1);
  // After a power failure, the log may have fewer lines than a reader has seen.
  let { lines, reports } = position.lines > end ? FIRST_POSITION : position;
  let shown: Task | undefined;
  while (!signal.aborted) {
    const { changed, task } = followed;
    for (const line of followed.lines > lines ? readLines(lines) : []) {
      lines = line.line;
      reports = 0;
      yield { event: 'log', id: `${lines}.0`, data: line };
    }
    if (task.status !== 'in_progress') {
      if (!isPastEnd({ lines, reports }, followed.lines)) yield { event: 'end', id: `${lines + 1}.0`, data: task };
      return;
    }
    if (shown === undefined || !hasSameProgress(shown, task)) {
      shown = task;
      reports++;
      yield { event: 'progress', id: `${lines}.${reports}`, data: task };
      await sleep(PROGRESS_INTERVAL_MS, undefined, { ref: false });
    }
    // `changed` was read before `task`, so that no change in between is missed.
    if (changed === undefined || !(await happens(changed, signal))) return;
  }
}

function hasSameProgress(one: Task, other: Task): boolean {
  return PROGRESS_FIELDS.every((name) => one[name] === other[name]);
}
