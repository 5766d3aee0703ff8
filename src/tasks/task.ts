import type { ErrorCode } from '../errors.ts';
import type { JsonObject, JsonValue } from '../json.ts';

/** A task begins `in_progress`, and keeps each of the other states for ever. */
export const TASK_STATUSES = ['in_progress', 'complete', 'failed', 'cancelled', 'interrupted'] as const;
export type TaskStatus = (typeof TASK_STATUSES)[number];

/** One piece of long work of a provider. */
export interface Task {
  /** A UUID. */
  readonly uid: string;
  /** Name of the provider. */
  readonly provider: string;
  readonly status: TaskStatus;
  /** 0 to 100; it never goes back, and is 100 when the task is complete, and only then. */
  readonly progress: number;
  readonly bytesDone: number;
  /** Null while the total is unknown. */
  readonly bytesTotal: number | null;
  /** What the work waits for at present, such as a server that does not answer, for people. It is not stored. */
  readonly waitingFor: string | null;
  /** As the client gave them, without secrets. */
  readonly parameters: JsonObject;
  /** What the provider returned; null while the task runs. A failed task may have a partial result. */
  readonly result: JsonValue;
  /** Why the task failed, was cancelled or was interrupted, for people. */
  readonly error: string | null;
  readonly code: ErrorCode | null;
  /** Counts from 1. A retry has one more than its task where the Loader died with that task, and the same after a stop. */
  readonly attempt: number;
  /** The uid of the interrupted task that this one repeats. */
  readonly retryOf: string | null;
  /** The id of the schedule that began the task. */
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
