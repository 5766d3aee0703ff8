import type { ErrorCode } from '../errors.ts';
import { asRecord, parseJson, type JsonObject, type JsonValue } from '../json.ts';
import { isCount, isId, isNullOr, isText, isTime, numberOrNull, textOf, type Row } from './row.ts';
import { TASK_LOG_LEVELS, TASK_STATUSES, type Task, type TaskLogLine } from './task.ts';

/** A log has at most 1,000 lines of its provider, and some of the runner. */
export const MAX_LINE_NUMBER = 10_000;

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

/** The task in a row; undefined where the row is damaged: one wrong bit in a text must not hide the other rows. */
export function readTask(row: Row): Task | undefined {
  const parameters = asRecord(parseJson(textOf(row, 'parameters')));
  const result = parseJson(textOf(row, 'result'));
  const status = TASK_STATUSES.find((known) => known === row['status']);
  const isSound =
    isId(row['uid']) &&
    isText(row['provider']) &&
    isCount(row['progress'], 100) &&
    isCount(row['bytes_done']) &&
    isNullOr(row['bytes_total'], (value) => isCount(value)) &&
    isNullOr(row['error'], isText) &&
    isNullOr(row['code'], isText) &&
    isCount(row['attempt']) &&
    isNullOr(row['retry_of'], isId) &&
    isNullOr(row['schedule_id'], isId) &&
    isTime(row['created_at']) &&
    isNullOr(row['finished_at'], isTime);
  if (!isSound || status === undefined || parameters === undefined || result === undefined) return undefined;
  return {
    uid: String(row['uid']),
    provider: String(row['provider']),
    status,
    progress: Number(row['progress']),
    bytesDone: Number(row['bytes_done']),
    bytesTotal: numberOrNull(row['bytes_total']),
    waitingFor: null,
    parameters: parameters as JsonObject,
    result: result as JsonValue,
    error: row['error'] as string | null,
    code: row['code'] as ErrorCode | null,
    attempt: Number(row['attempt']),
    retryOf: row['retry_of'] as string | null,
    scheduleId: row['schedule_id'] as string | null,
    createdAtMs: Number(row['created_at']),
    finishedAtMs: numberOrNull(row['finished_at']),
  };
}

/** The line of a log in a row; undefined where the row is damaged. */
export function readLogLine(row: Row): TaskLogLine | undefined {
  const level = TASK_LOG_LEVELS.find((known) => known === row['level']);
  const isSound = isCount(row['line'], MAX_LINE_NUMBER) && isTime(row['time']) && isText(row['text']);
  if (!isSound || level === undefined) return undefined;
  return { line: Number(row['line']), timeMs: Number(row['time']), level, text: String(row['text']) };
}
