import type { Schedule } from '../../tasks/schedule.ts';
import type { TaskEvent } from '../../tasks/task-events.ts';
import type { Task, TaskLogLine, TaskStatus } from '../../tasks/task.ts';
import type { ServerEvent } from '../bodies/send-events.ts';
import type { JsonValue } from '../../json.ts';

/** A task as the original's clients know it: what POST / and GET /tasks answer. */
export interface TaskSummary {
  readonly uid: string;
  readonly status: TaskStatus;
  readonly progress: number;
  readonly result: JsonValue;
  readonly provider: string;
}

export function toTaskSummary({ uid, status, progress, result, provider }: Task): TaskSummary {
  return { uid, status, progress, result, provider };
}

/** All that is known of a task. Names are in snake case, as `catch_up` of the schedules is. */
export function toTaskView(task: Task) {
  return {
    ...toTaskSummary(task),
    bytes_done: task.bytesDone,
    bytes_total: task.bytesTotal,
    parameters: task.parameters,
    error: task.error,
    code: task.code,
    attempt: task.attempt,
    retry_of: task.retryOf,
    schedule: task.scheduleId,
    created_at: toTime(task.createdAtMs),
    finished_at: toTime(task.finishedAtMs),
  };
}

export function toLogLine({ line, timeMs, level, text }: TaskLogLine) {
  return { line, time: toTime(timeMs), level, text };
}

export function toServerEvent({ event, id, data }: TaskEvent): ServerEvent {
  if (event === 'log') return { event, id, data: toLogLine(data) };
  if (event === 'end') return { event, id, data: toTaskView(data) };
  return { event, id, data: { progress: data.progress, bytes_done: data.bytesDone, bytes_total: data.bytesTotal } };
}

export function toScheduleView(schedule: Schedule) {
  const { id, provider, parameters, cron, timezone, catchUp, lastDue } = schedule;
  return {
    id,
    provider,
    parameters,
    cron,
    timezone,
    catch_up: catchUp,
    created_at: toTime(schedule.createdAtMs),
    next_run: toTime(schedule.nextDueAtMs),
    last_run:
      lastDue === null
        ? null
        : { due_at: toTime(lastDue.dueAtMs), outcome: lastDue.outcome, task: lastDue.task, reason: lastDue.reason },
  };
}

function toTime(timeMs: number): string;
function toTime(timeMs: number | null): string | null;
function toTime(timeMs: number | null): string | null {
  return timeMs === null ? null : new Date(timeMs).toISOString();
}
