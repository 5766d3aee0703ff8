import { setTimeout as sleep } from 'node:timers/promises';
import { happens } from '../async/abort.ts';
import type { Task, TaskLogLine } from './task.ts';

/**
 * Where somebody is in the events of a task: log lines seen, and reports of progress seen since the last of them. Its
 * text form, `lines.reports`, is the id of an event. Lines are stored, so positions stay good after a restart.
 */
export interface EventPosition {
  readonly lines: number;
  readonly reports: number;
}

export type TaskEvent =
  | { readonly event: 'log'; readonly id: string; readonly data: TaskLogLine }
  | { readonly event: 'progress' | 'end'; readonly id: string; readonly data: Task };

/** What can be followed: a running task, or one that has ended. */
export interface FollowedTask {
  readonly task: Task;
  /** Lines that its log has. */
  readonly lines: number;
  /** Resolves at the next change. */
  readonly changed: Promise<unknown> | undefined;
}

/** Before the first event. */
export const FIRST_POSITION: EventPosition = { lines: 0, reports: 0 };

/** Progress is told at most this often, in ms, and what follows it waits no longer. */
const PROGRESS_INTERVAL_MS = 50;

/** Reads the id of an event. Undefined for what is none. */
export function parseEventPosition(id: string): EventPosition | undefined {
  const match = /^(\d{1,9})\.(\d{1,9})$/.exec(id);
  return match === null ? undefined : { lines: Number(match[1]), reports: Number(match[2]) };
}

/** Whether `position` is after the end of a task with so many lines: its end counts as a further line. */
export function isPastEnd(position: EventPosition, lines: number): boolean {
  return position.lines === lines + 1;
}

/** Yields the events of a task after `position`, and ends after its end, or when `signal` aborts. */
export async function* followTask(
  followed: FollowedTask,
  position: EventPosition,
  readLines: (after: number) => readonly TaskLogLine[],
  signal: AbortSignal,
): AsyncGenerator<TaskEvent, void, undefined> {
  const end = followed.lines + (followed.task.status === 'in_progress' ? 0 : 1);
  // Lines may be missing that were told before the power failed.
  let { lines, reports } = position.lines > end ? FIRST_POSITION : position;
  let told: Task | undefined;
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
    if (told?.progress !== task.progress || told.bytesDone !== task.bytesDone || told.bytesTotal !== task.bytesTotal) {
      told = task;
      reports++;
      yield { event: 'progress', id: `${lines}.${reports}`, data: task };
      await sleep(PROGRESS_INTERVAL_MS, undefined, { ref: false });
    }
    // Taken before the task was read, so that no change since is missed.
    if (changed === undefined || !(await happens(changed, signal))) return;
  }
}
