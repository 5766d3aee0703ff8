import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { toScheduleView } from '../../../src/http/schemas/schedule.ts';
import { toLogLine, toServerEvent, toTaskSummary, toTaskView } from '../../../src/http/schemas/task.ts';
import type { Schedule } from '../../../src/tasks/schedule.ts';
import type { Task } from '../../../src/tasks/task.ts';

const TIME_MS = Date.parse('2026-01-02T03:04:05.678Z');

const TASK: Task = {
  uid: 'u',
  provider: 'prefetch',
  status: 'failed',
  progress: 40,
  bytesDone: 4,
  bytesTotal: 10,
  waitingFor: 'the CDN',
  parameters: { x: [1] },
  result: { part: true },
  error: 'why',
  code: 'prefetch_incomplete',
  attempt: 2,
  retryOf: 'r',
  scheduleId: 's',
  createdAtMs: TIME_MS,
  finishedAtMs: TIME_MS + 1,
};

const SCHEDULE: Schedule = {
  id: 's',
  provider: 'verify',
  parameters: {},
  cron: '0 0 * * *',
  timezone: 'UTC',
  catchUp: true,
  isPaused: false,
  name: null,
  createdAtMs: TIME_MS,
  nextDueAtMs: TIME_MS + 1,
  lastDue: { dueAtMs: TIME_MS + 2, outcome: 'skipped', task: null, reason: 'busy' },
};

describe('the view of a task', () => {
  it('is what the original’s clients know, in their order', () => {
    assert.equal(
      JSON.stringify(toTaskSummary(TASK)),
      '{"uid":"u","status":"failed","progress":40,"result":{"part":true},"provider":"prefetch"}',
    );
  });

  it('has all that is known of it', () => {
    assert.deepEqual(toTaskView(TASK), {
      uid: 'u',
      status: 'failed',
      progress: 40,
      result: { part: true },
      provider: 'prefetch',
      bytes_done: 4,
      bytes_total: 10,
      waiting_for: 'the CDN',
      parameters: { x: [1] },
      error: 'why',
      code: 'prefetch_incomplete',
      attempt: 2,
      retry_of: 'r',
      schedule: 's',
      created_at: '2026-01-02T03:04:05.678Z',
      finished_at: '2026-01-02T03:04:05.679Z',
    });
    assert.equal(toTaskView({ ...TASK, finishedAtMs: null }).finished_at, null);
  });

  it('of its log and its events has times that people can read', () => {
    const line = { line: 3, timeMs: TIME_MS, level: 'warn', text: 'x' } as const;
    const view = { line: 3, time: '2026-01-02T03:04:05.678Z', level: 'warn', text: 'x' };
    assert.deepEqual(toLogLine(line), view);
    assert.deepEqual(toServerEvent({ event: 'log', id: '3.0', data: line }), { event: 'log', id: '3.0', data: view });
    assert.deepEqual(toServerEvent({ event: 'end', id: '4.0', data: TASK }), {
      event: 'end',
      id: '4.0',
      data: toTaskView(TASK),
    });
    assert.deepEqual(toServerEvent({ event: 'progress', id: '3.1', data: TASK }), {
      event: 'progress',
      id: '3.1',
      data: { progress: 40, bytes_done: 4, bytes_total: 10, waiting_for: 'the CDN' },
    });
  });
});

describe('the view of a schedule', () => {
  it('has all that is known of it', () => {
    assert.deepEqual(toScheduleView(SCHEDULE), {
      id: 's',
      name: null,
      provider: 'verify',
      parameters: {},
      cron: '0 0 * * *',
      timezone: 'UTC',
      catch_up: true,
      paused: false,
      created_at: '2026-01-02T03:04:05.678Z',
      next_run: '2026-01-02T03:04:05.679Z',
      last_run: { due_at: '2026-01-02T03:04:05.680Z', outcome: 'skipped', task: null, reason: 'busy' },
    });
  });

  it('says that there is no next or last run', () => {
    const view = toScheduleView({ ...SCHEDULE, nextDueAtMs: null, lastDue: null });
    assert.deepEqual([view.next_run, view.last_run], [null, null]);
  });
});
