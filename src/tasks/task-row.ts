import type { SQLOutputValue } from 'node:sqlite';
import type { ErrorCode } from '../errors.ts';
import type { JsonObject, JsonValue } from '../json.ts';
import type { Task, TaskLogLevel, TaskLogLine, TaskStatus } from './task.ts';

/** A row of a table, by the names of its columns. */
export type Row = Readonly<Record<string, SQLOutputValue>>;

/** The columns of a task, without the `seq` that the database chooses. */
export const TASK_COLUMNS = [
  'uid',
  'provider',
  'status',
  'progress',
  'bytes_done',
  'bytes_total',
  'parameters',
  'result',
  'error',
  'code',
  'attempt',
  'retry_of',
  'schedule_id',
  'created_at',
  'finished_at',
] as const;

export type TaskRow = Readonly<Record<(typeof TASK_COLUMNS)[number], string | number | null>>;

export function toTaskRow(task: Task): TaskRow {
  return {
    uid: task.uid,
    provider: task.provider,
    status: task.status,
    progress: task.progress,
    bytes_done: task.bytesDone,
    bytes_total: task.bytesTotal,
    parameters: JSON.stringify(task.parameters),
    result: JSON.stringify(task.result),
    error: task.error,
    code: task.code,
    attempt: task.attempt,
    retry_of: task.retryOf,
    schedule_id: task.scheduleId,
    created_at: task.createdAtMs,
    finished_at: task.finishedAtMs,
  };
}

export function toTask(row: Row): Task {
  return {
    uid: String(row['uid']),
    provider: String(row['provider']),
    status: row['status'] as TaskStatus,
    progress: Number(row['progress']),
    bytesDone: Number(row['bytes_done']),
    bytesTotal: row['bytes_total'] as number | null,
    parameters: JSON.parse(String(row['parameters'])) as JsonObject,
    result: JSON.parse(String(row['result'])) as JsonValue,
    error: row['error'] as string | null,
    code: row['code'] as ErrorCode | null,
    attempt: Number(row['attempt']),
    retryOf: row['retry_of'] as string | null,
    scheduleId: row['schedule_id'] as string | null,
    createdAtMs: Number(row['created_at']),
    finishedAtMs: row['finished_at'] as number | null,
  };
}

export function toLogLine(row: Row): TaskLogLine {
  return {
    line: Number(row['line']),
    timeMs: Number(row['time']),
    level: row['level'] as TaskLogLevel,
    text: String(row['text']),
  };
}
