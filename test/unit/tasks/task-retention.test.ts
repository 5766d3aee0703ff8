import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import type { DatabaseSync } from 'node:sqlite';
import { TaskStore } from '../../../src/tasks/task-store.ts';
import type { Task } from '../../../src/tasks/task.ts';
import { addEndedTask, DAY_MS, endTask, makeLogger, makeTask, openMemoryDatabase } from '../../support/task-lab.ts';

const NOW_MS = Date.now();
const { logger } = makeLogger();

let database: DatabaseSync = openMemoryDatabase();
let store = makeStore();

beforeEach(() => {
  database = openMemoryDatabase();
  store = makeStore();
});

function makeStore(historyCount = 1_000, historyAgeMs = 90 * DAY_MS): TaskStore {
  return new TaskStore({ database, logger, historyCount, historyAgeMs });
}

function end(task: Task, change: Partial<Task> = {}): Task {
  return endTask(task, { finishedAtMs: NOW_MS, ...change });
}

function addEnded(uid: string, change: Partial<Task> = {}): Task {
  return addEndedTask(store, uid, { finishedAtMs: NOW_MS, ...change });
}

/** The tasks that are kept, newest first. */
function uids(): string[] {
  return store.history({ limit: 1_000 }).tasks.map(({ uid }) => uid);
}

function count(table: string): unknown {
  return database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.['n'];
}

describe('what is kept', () => {
  it('is as many finished tasks as asked, and each that runs', () => {
    store = makeStore(3);
    store.insert(makeTask({ uid: 'running' }));
    for (const uid of ['a', 'b', 'c']) addEnded(uid);
    assert.deepEqual(uids(), ['c', 'b', 'a', 'running']);
    addEnded('d');
    assert.deepEqual(uids(), ['d', 'c', 'b', 'running']);
    addEnded('e');
    assert.deepEqual(uids(), ['e', 'd', 'c', 'running']);
    assert.equal(count('tasks'), 4);
  });

  it('is counted anew when the store is made', () => {
    for (const uid of ['a', 'b', 'c', 'd']) addEnded(uid);
    store.insert(makeTask({ uid: 'running' }));
    store = makeStore(2);
    assert.deepEqual(uids(), ['running', 'd', 'c']);
    addEnded('e');
    assert.deepEqual(uids(), ['e', 'running', 'd']);
  });

  it('is what ended last, however early it began', () => {
    store = makeStore(2);
    for (const uid of ['long', 'a', 'b', 'c']) store.insert(makeTask({ uid, provider: uid }));
    for (const [index, uid] of ['a', 'b', 'c', 'long'].entries()) {
      store.finish(end(makeTask({ uid }), { finishedAtMs: NOW_MS + index }), null);
    }
    assert.deepEqual(uids(), ['c', 'long']);
    addEnded('d', { finishedAtMs: NOW_MS + 10 });
    assert.deepEqual(uids(), ['d', 'long']);
  });

  it('is what has just ended, also where the clock was set back', () => {
    store = makeStore(1);
    addEnded('a', { finishedAtMs: NOW_MS });
    addEnded('b', { finishedAtMs: 1_000 });
    assert.deepEqual(uids(), ['b']);
    addEnded('c', { finishedAtMs: 2_000 });
    assert.deepEqual(uids(), ['c']);
  });

  it('is not too old: the moment of the end counts, to the millisecond', () => {
    addEnded('old', { finishedAtMs: NOW_MS });
    addEnded('at-the-limit', { finishedAtMs: NOW_MS + 1 });
    addEnded('young', { finishedAtMs: NOW_MS + 500 });
    store = makeStore(100, 10 * DAY_MS);
    addEnded('new', { finishedAtMs: NOW_MS + 10 * DAY_MS + 1 });
    assert.deepEqual(uids(), ['new', 'young', 'at-the-limit']);
  });

  it('is what this process ran, whatever its clock said', () => {
    store = makeStore(100, DAY_MS);
    addEnded('at-the-first-moment', { finishedAtMs: 1_000 });
    addEnded('after-the-clock-was-set', { finishedAtMs: NOW_MS });
    assert.deepEqual(uids(), ['after-the-clock-was-set', 'at-the-first-moment']);
    store = makeStore(100, DAY_MS);
    assert.deepEqual(uids(), ['after-the-clock-was-set']);
  });

  it('counts right after some were too old', () => {
    addEnded('a', { finishedAtMs: NOW_MS });
    addEnded('b', { finishedAtMs: NOW_MS });
    store = makeStore(2, DAY_MS);
    addEnded('c', { finishedAtMs: NOW_MS + 2 * DAY_MS });
    assert.deepEqual(uids(), ['c']);
    addEnded('d', { finishedAtMs: NOW_MS + 2 * DAY_MS });
    assert.deepEqual(uids(), ['d', 'c']);
    addEnded('e', { finishedAtMs: NOW_MS + 2 * DAY_MS });
    assert.deepEqual(uids(), ['e', 'd']);
  });

  it('loses what is too old when the store is made', () => {
    addEnded('old', { finishedAtMs: NOW_MS - 2 * DAY_MS });
    addEnded('new', { finishedAtMs: NOW_MS });
    store = makeStore(100, DAY_MS);
    assert.deepEqual(uids(), ['new']);
  });

  it('holds what is to begin anew, whatever the limits are', () => {
    const tasks = ['a', 'b', 'c'].map((uid) => makeTask({ uid, provider: uid }));
    store = makeStore(1);
    for (const task of tasks) store.insert(task);
    for (const task of tasks) store.finish(end(task, { status: 'interrupted', progress: 1 }), 2);
    assert.deepEqual(
      makeStore(1)
        .pendingRetries()
        .map(({ task }) => task.uid),
      ['a', 'b', 'c'],
    );
  });

  it('holds what is to begin anew, however old it is', () => {
    store.insert(makeTask({ uid: 'a' }));
    store.finish(end(makeTask({ uid: 'a' }), { status: 'interrupted', progress: 1, finishedAtMs: 1_000 }), 2);
    assert.equal(makeStore(100, DAY_MS).pendingRetries().length, 1);
  });

  it('is a tenth less at each end where the database is very large, until it is not', () => {
    const kept = () =>
      database
        .prepare('SELECT uid FROM tasks ORDER BY seq')
        .all()
        .map(({ uid }) => String(uid))
        .join(' ');
    // Two of them are more than the database may hold, one is not.
    const result = 'x'.repeat(34 * 1024 * 1024);
    addEnded('large', { result, finishedAtMs: NOW_MS });
    for (let index = 1; index <= 9; index++) addEnded(`u${index}`, { finishedAtMs: NOW_MS + index });
    assert.equal(kept(), 'large u1 u2 u3 u4 u5 u6 u7 u8 u9');
    addEnded('larger', { result, finishedAtMs: NOW_MS + 10 }); // Eleven, of which nine are to stay.
    assert.equal(kept(), 'u2 u3 u4 u5 u6 u7 u8 u9 larger');
    addEnded('last', { finishedAtMs: NOW_MS + 11 });
    assert.equal(kept(), 'u2 u3 u4 u5 u6 u7 u8 u9 larger last');
  });
});
