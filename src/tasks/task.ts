import type { ErrorCode } from '../errors.ts';
import type { JsonObject, JsonValue } from '../json.ts';

/** `in_progress` is the only state that others follow; the rest is for ever. */
export const TASK_STATUSES = ['in_progress', 'complete', 'failed', 'cancelled', 'interrupted'] as const;
export type TaskStatus = (typeof TASK_STATUSES)[number];

/** One piece of long work: a run of a provider. */
export interface Task {
  /** A UUID. */
  readonly uid: string;
  /** Name of the provider. */
  readonly provider: string;
  readonly status: TaskStatus;
  /** 0 to 100; it never goes back, and is 100 when the task is complete, and only then. */
  readonly progress: number;
  readonly bytesDone: number;
  /** Null while it is not known. */
  readonly bytesTotal: number | null;
  /** As they were given, without secrets. */
  readonly parameters: JsonObject;
  /** Of the provider. Null while the task runs; a failed one may have the part that it achieved. */
  readonly result: JsonValue;
  /** Why it is neither complete nor running, for people. */
  readonly error: string | null;
  readonly code: ErrorCode | null;
  /** From 1 on: one more than that of the task that this one repeats, where the Loader died with that one. */
  readonly attempt: number;
  /** The uid of that task. */
  readonly retryOf: string | null;
  /** The schedule that began it. */
  readonly scheduleId: string | null;
  /** ms since 1970. */
  readonly createdAtMs: number;
  readonly finishedAtMs: number | null;
}

export const TASK_LOG_LEVELS = ['info', 'warn', 'error'] as const;
export type TaskLogLevel = (typeof TASK_LOG_LEVELS)[number];

export interface TaskLogLine {
  /** Counts the lines of a task from 1. */
  readonly line: number;
  /** ms since 1970. */
  readonly timeMs: number;
  readonly level: TaskLogLevel;
  readonly text: string;
}
