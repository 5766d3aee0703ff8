import type { Static } from 'typebox';
import { ERROR_CODE, JSON_OBJECT, JSON_VALUE, nullable, textEnum, Type } from '../../json-schemas.ts';
import type { TaskEvent } from '../../tasks/task-events.ts';
import { TASK_LOG_LEVELS, TASK_STATUSES, type Task, type TaskLogLine } from '../../tasks/task.ts';
import type { ServerEvent } from '../bodies/send-events.ts';
import { ref, TIME } from './responses.ts';

const EXAMPLE = {
  uid: '0b7b5ab0-6d0a-4c53-9b1c-3a4e9b6f2d11',
  status: 'in_progress',
  progress: 40,
  result: null,
  provider: 'verify',
};
const STATUS = textEnum(TASK_STATUSES);

/** The schema of the provider that is named checks the other fields. */
export const NEW_TASK = Type.Object(
  { provider: Type.String({ description: 'The kind of task.', examples: ['verify'] }) },
  { additionalProperties: true, description: 'The provider and its parameters.', examples: [{ provider: 'verify' }] },
);

export const TASK_PARAMS = Type.Object({
  uid: Type.String({ description: 'The uid of the task.', examples: [EXAMPLE.uid] }),
});

/** All that stands in a query is text. */
export const HISTORY_QUERY = Type.Object({
  provider: Type.Optional(Type.String({ description: 'Only tasks of this provider.', examples: ['verify'] })),
  status: Type.Optional(textEnum(TASK_STATUSES, { description: 'Only tasks of this status.', examples: ['complete'] })),
  limit: Type.Optional(
    Type.String({ format: 'page-limit', description: 'Tasks on a page, 1 to 200; 50 if absent.', examples: ['50'] }),
  ),
  cursor: Type.Optional(
    Type.String({ format: 'count', description: 'The next_cursor of the page before.', examples: ['1000'] }),
  ),
});

export const LOGS_QUERY = Type.Object({
  after: Type.Optional(Type.String({ format: 'count', description: 'Only lines after this one.', examples: ['0'] })),
});

export const EVENTS_HEADERS = Type.Object({
  'last-event-id': Type.Optional(Type.String({ description: 'The id of the last event that the client saw.' })),
});

/** The original's clients know these fields. */
const SUMMARY_FIELDS = {
  uid: Type.String({ description: 'A UUID.' }),
  status: STATUS,
  progress: Type.Integer({ description: '0 to 100; it never goes back, and is 100 only when the task is complete.' }),
  result: Type.Unsafe<Task['result']>({
    ...JSON_VALUE,
    description: "The provider's. Null while the task runs; a failed task may have the part that it achieved.",
  }),
  provider: Type.String(),
};

export const TASK_SUMMARY = Type.Object(SUMMARY_FIELDS, {
  $id: 'TaskSummary',
  description: 'A task as the original shows it.',
  examples: [EXAMPLE],
});

export const TASK = Type.Object(
  {
    ...SUMMARY_FIELDS,
    bytes_done: Type.Integer(),
    bytes_total: nullable(Type.Integer({ description: 'Null while it is not known.' })),
    waiting_for: nullable(Type.String({ description: 'What the task waits for, for people; null while it goes on.' })),
    parameters: JSON_OBJECT,
    error: nullable(Type.String({ description: 'Why it is neither running nor complete, for people.' })),
    code: nullable(ERROR_CODE),
    attempt: Type.Integer({ description: 'From 1 on: one more than that of the task that this one repeats.' }),
    retry_of: nullable(Type.String({ description: 'The uid of that task.' })),
    schedule: nullable(Type.String({ description: 'The id of the schedule that began it.' })),
    created_at: TIME,
    finished_at: nullable(TIME),
  },
  {
    $id: 'Task',
    description: 'All that is known of a task.',
    examples: [
      {
        ...EXAMPLE,
        bytes_done: 4,
        bytes_total: 10,
        waiting_for: null,
        parameters: {},
        error: null,
        code: null,
        attempt: 1,
        retry_of: null,
        schedule: null,
        created_at: '2026-01-02T03:04:05.678Z',
        finished_at: null,
      },
    ],
  },
);

/** With the same status as a new task, as in the original. */
export const BUSY = Type.Object(
  {
    message: Type.Unsafe<string>({ type: 'string', const: 'A job with the same provider is already in progress' }),
    uid: Type.String({ description: 'The uid of that task.' }),
  },
  { $id: 'Busy', description: 'A task of the same provider is in progress.' },
);

export const NEW_TASK_RESPONSE = Type.Unsafe<Static<typeof TASK_SUMMARY> | Static<typeof BUSY>>({
  description:
    'The task that has begun, or a message with the uid of the one of the same provider that is in progress.',
  anyOf: [ref(TASK_SUMMARY), ref(BUSY)],
});

export const RUNNING_TASKS = Type.Unsafe<Readonly<Record<string, Static<typeof TASK_SUMMARY>>>>({
  type: 'object',
  description: 'By uid: tasks that are in progress, or ended within the last second.',
  additionalProperties: ref(TASK_SUMMARY),
  examples: [{ [EXAMPLE.uid]: EXAMPLE }],
});

export const HISTORY = Type.Object(
  {
    tasks: Type.Array(ref(TASK)),
    next_cursor: nullable(Type.String({ description: 'The cursor of the next page; null on the last one.' })),
  },
  { description: 'A page of the history, the latest task first.', examples: [{ tasks: [], next_cursor: null }] },
);

const LOG_LINE = Type.Object({
  line: Type.Integer({ description: 'Counts from 1.' }),
  time: TIME,
  level: textEnum(TASK_LOG_LEVELS),
  text: Type.String(),
});

export const LOG_LINES = Type.Object(
  { lines: Type.Array(LOG_LINE) },
  {
    description: 'The log of a task.',
    examples: [{ lines: [{ line: 1, time: '2026-01-02T03:04:05.678Z', level: 'info', text: '2 good' }] }],
  },
);

/** @param running the task that is in progress */
export function toBusy({ uid }: Pick<Task, 'uid'>): Static<typeof BUSY> {
  return { message: 'A job with the same provider is already in progress', uid };
}

export function toTaskSummary({ uid, status, progress, result, provider }: Task): Static<typeof TASK_SUMMARY> {
  return { uid, status, progress, result, provider };
}

export function toTaskView(task: Task): Static<typeof TASK> {
  return {
    ...toTaskSummary(task),
    bytes_done: task.bytesDone,
    bytes_total: task.bytesTotal,
    waiting_for: task.waitingFor,
    parameters: task.parameters,
    error: task.error,
    code: task.code,
    attempt: task.attempt,
    retry_of: task.retryOf,
    schedule: task.scheduleId,
    created_at: toTime(task.createdAtMs),
    finished_at: task.finishedAtMs === null ? null : toTime(task.finishedAtMs),
  };
}

export function toLogLine({ line, timeMs, level, text }: TaskLogLine): Static<typeof LOG_LINE> {
  return { line, time: toTime(timeMs), level, text };
}

export function toServerEvent({ event, id, data }: TaskEvent): ServerEvent {
  if (event === 'log') return { event, id, data: toLogLine(data) };
  if (event === 'end') return { event, id, data: toTaskView(data) };
  const { progress, bytes_done, bytes_total, waiting_for } = toTaskView(data);
  return { event, id, data: { progress, bytes_done, bytes_total, waiting_for } };
}

/** ISO 8601 from ms since 1970. */
export function toTime(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
