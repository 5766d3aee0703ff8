import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeEach, describe, it } from 'node:test';
import type { DatabaseSync } from 'node:sqlite';
import { LoaderError } from '../../../src/errors.ts';
import { openTaskDatabase } from '../../../src/tasks/task-database.ts';
import { TaskStore, type HistoryFilter } from '../../../src/tasks/task-store.ts';
import { TASK_LOG_LEVELS, type Task } from '../../../src/tasks/task.ts';
import {
  addEndedTask,
  DAY_MS,
  endTask,
  makeLine,
  makeLogger,
  makeTask,
  openMemoryDatabase,
} from '../../support/task-lab.ts';

const NOW_MS = Date.now();

let database: DatabaseSync = openMemoryDatabase();
let { logger, logLines } = makeLogger();
let store = makeStore();

beforeEach(() => {
  database = openMemoryDatabase();
  ({ logger, logLines } = makeLogger());
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

function uids(filter: Partial<HistoryFilter> = {}): string[] {
  return store.history({ limit: 1_000, ...filter }).tasks.map(({ uid }) => uid);
}

function count(table: string): unknown {
  return database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.['n'];
}

function refuseWrites(isRefused: boolean): void {
  database.exec(`PRAGMA query_only = ${isRefused ? 1 : 0}`);
}

const isUnavailable = (error: unknown) => error instanceof LoaderError && error.code === 'task_store_unavailable';

describe('a stored task', () => {
  it('is found as it was stored, to the last of its properties', () => {
    const task = makeTask({
      uid: 'u',
      provider: 'prefetch',
      progress: 7,
      bytesDone: Number.MAX_SAFE_INTEGER,
      bytesTotal: 2 ** 40,
      parameters: { text: 'ü " \\ \u0000 \u{1f40b}', list: [1, null, true, { deep: -0.5 }], none: null },
      attempt: 3,
      retryOf: 'other',
      scheduleId: 'schedule',
      createdAtMs: 1_764_000_000_123,
    });
    store.insert(task);
    assert.deepEqual(store.find('u'), task);
    const ended = end(task, {
      status: 'failed',
      progress: 55,
      result: { half: ['of', 'it'] },
      error: 'why',
      code: 'prefetch_incomplete',
      bytesDone: 12,
      bytesTotal: null,
      finishedAtMs: NOW_MS + 7,
    });
    store.finish(ended, null);
    assert.deepEqual(store.find('u'), ended);
    assert.deepEqual(makeStore().find('u'), ended);
  });

  it('keeps what it began with when it ends', () => {
    const task = makeTask({
      uid: 'u',
      parameters: { a: 1 },
      attempt: 2,
      retryOf: 'r',
      scheduleId: 's',
      createdAtMs: 5,
    });
    store.insert(task);
    store.finish(
      end({ ...task, parameters: {}, attempt: 9, retryOf: 'x', scheduleId: 'x', createdAtMs: 9, provider: 'x' }),
      null,
    );
    assert.deepEqual(makeStore().find('u'), end(task));
  });

  for (const result of [null, false, 0, '', 'text', [], {}, [null]]) {
    it(`has the result that it ended with: ${JSON.stringify(result)}`, () => {
      assert.deepEqual(makeStore().find(addEnded('u', { result }).uid)?.result, result);
    });
  }

  it('is not found where there is none', () => {
    assert.equal(store.find('u'), undefined);
    assert.deepEqual(store.lines('u', 0), []);
    assert.equal(store.lineCount('u'), 0);
  });

  it('has the progress that was saved, until it has ended', () => {
    const task = makeTask({ uid: 'u' });
    store.insert(task);
    store.insert(makeTask({ uid: 'v', provider: 'q' }));
    store.saveProgress({ ...task, progress: 30, bytesDone: 3, bytesTotal: 10, error: 'not this' });
    assert.deepEqual(store.find('u'), { ...task, progress: 30, bytesDone: 3, bytesTotal: 10 });
    assert.equal(store.find('v')?.progress, 0);
    store.finish(end(task, { progress: 100 }), null);
    store.saveProgress({ ...task, progress: 40 });
    assert.equal(store.find('u')?.progress, 100);
  });

  it('ends once: what comes later changes nothing', () => {
    const task = makeTask({ uid: 'u' });
    store.insert(task);
    const ended = end(task, { status: 'interrupted', progress: 1 });
    store.finish(ended, 2);
    for (const retryAttempt of [null, 3]) {
      store.finish(end(task), retryAttempt);
      assert.deepEqual(makeStore().find('u'), ended);
      assert.deepEqual(store.pendingRetries(), [{ task: ended, attempt: 2 }]);
    }
    assert.deepEqual(logLines, []);
    addEnded('v');
  });

  it('that has ended can not be changed by anybody', () => {
    const ended = addEnded('u');
    for (const change of ['progress = 1', "status = 'in_progress'", "status = 'failed'", 'result = NULL', 'seq = 99']) {
      assert.throws(
        () => {
          database.exec(`UPDATE tasks SET ${change}`);
        },
        /a finished task can not change/,
        change,
      );
    }
    assert.deepEqual(store.find('u'), ended);
  });

  it('has one of the known states', () => {
    assert.throws(() => {
      store.insert(makeTask({ uid: 'u', status: 'paused' as 'failed' }));
    }, isUnavailable);
  });

  it('is the only one of its provider that is in progress', () => {
    store.insert(makeTask({ uid: 'u' }));
    assert.throws(() => {
      store.insert(makeTask({ uid: 'v' }));
    }, isUnavailable);
    assert.equal(store.find('v'), undefined);
    store.insert(makeTask({ uid: 'w', provider: 'q' }));
    store.finish(end(makeTask({ uid: 'u' })), null);
    store.insert(makeTask({ uid: 'v' }));
    assert.deepEqual(uids(), ['v', 'w', 'u']);
  });

  it('has a uid that no other has', () => {
    addEnded('u');
    assert.throws(() => {
      store.insert(makeTask({ uid: 'u' }));
    }, isUnavailable);
    assert.equal(store.find('u')?.status, 'complete');
  });
});

describe('tasks that nobody runs any more', () => {
  it('are all that are in progress, oldest first', () => {
    addEnded('a');
    store.insert(makeTask({ uid: 'b' }));
    store.insert(makeTask({ uid: 'c', provider: 'q' }));
    assert.deepEqual(
      store.unfinished().map(({ uid }) => uid),
      ['b', 'c'],
    );
  });

  it('are to begin anew where that was asked, once', () => {
    const tasks = ['a', 'b', 'c'].map((uid) => makeTask({ uid, provider: uid }));
    for (const task of tasks) store.insert(task);
    const ends = tasks.map((task) => end(task, { status: 'interrupted', progress: 3 }));
    for (const [index, ended] of ends.entries()) store.finish(ended, index === 1 ? null : index + 2);
    assert.deepEqual(makeStore().pendingRetries(), [
      { task: ends[0], attempt: 2 },
      { task: ends[2], attempt: 4 },
    ]);
    store.insertRetry(makeTask({ uid: 'a2', provider: 'a', retryOf: 'a' }));
    assert.deepEqual(store.pendingRetries(), [{ task: ends[2], attempt: 4 }]);
    store.dropRetry('b');
    store.dropRetry('unknown');
    assert.deepEqual(store.pendingRetries(), [{ task: ends[2], attempt: 4 }]);
    store.dropRetry('c');
    assert.deepEqual(store.pendingRetries(), []);
    assert.deepEqual(uids(), ['a2', 'c', 'b', 'a']);
  });

  it('keep their plan where their repetition can not be stored', () => {
    const ended = end(makeTask({ uid: 'a' }), { status: 'interrupted', progress: 3 });
    store.insert(makeTask({ uid: 'a' }));
    store.finish(ended, 2);
    assert.throws(() => {
      store.insertRetry(makeTask({ uid: 'a', retryOf: 'a' }));
    }, isUnavailable);
    assert.deepEqual(store.pendingRetries(), [{ task: ended, attempt: 2 }]);
  });
});

describe('a log', () => {
  it('has the lines of its task in their order, from where one likes', () => {
    for (const uid of ['u', 'v']) store.insert(makeTask({ uid, provider: uid }));
    const lines = TASK_LOG_LEVELS.map((level, index) => ({ ...makeLine(index + 1), level }));
    store.addLine('v', makeLine(1, 'of another'));
    for (const line of lines) store.addLine('u', line);
    assert.deepEqual(store.lines('u', 0), lines);
    assert.deepEqual(store.lines('u', 1), lines.slice(1));
    assert.deepEqual(store.lines('u', 2), lines.slice(2));
    assert.deepEqual(store.lines('u', 3), []);
    assert.deepEqual(store.lines('u', 1e9), []);
    assert.equal(store.lineCount('u'), 3);
    assert.equal(store.lineCount('v'), 1);
    assert.deepEqual(makeStore().lines('u', 0), lines);
  });

  it('has each line once', () => {
    store.insert(makeTask({ uid: 'u' }));
    store.addLine('u', makeLine(1, 'first'));
    assert.throws(() => store.addLine('u', makeLine(1, 'second')), isUnavailable);
    assert.deepEqual(
      store.lines('u', 0).map(({ text }) => text),
      ['first'],
    );
  });

  it('goes on after its task has ended, and goes with it', () => {
    store = makeStore(1);
    addEnded('u');
    store.addLine('u', makeLine(1));
    assert.equal(count('task_logs'), 1);
    store.insert(makeTask({ uid: 'v' }));
    store.addLine('v', makeLine(1));
    store.finish(end(makeTask({ uid: 'v' })), null);
    assert.equal(count('task_logs'), 1);
    assert.deepEqual([store.lineCount('u'), store.lineCount('v')], [0, 1]);
  });

  it('of a task that is not there is nowhere', () => {
    store.addLine('unknown', makeLine(1));
    assert.equal(count('task_logs'), 0);
  });
});

describe('the history', () => {
  it('has every task, newest first', () => {
    for (const uid of ['a', 'b', 'c']) addEnded(uid, { createdAtMs: uid === 'a' ? 9e12 : 1 });
    store.insert(makeTask({ uid: 'd' }));
    assert.deepEqual(uids(), ['d', 'c', 'b', 'a']);
  });

  it('has those of a provider, of a state, or of both', () => {
    addEnded('a', { provider: 'x' });
    addEnded('b', { provider: 'y', status: 'failed' });
    addEnded('c', { provider: 'x', status: 'failed' });
    store.insert(makeTask({ uid: 'd', provider: 'x' }));
    assert.deepEqual(uids({ provider: 'x' }), ['d', 'c', 'a']);
    assert.deepEqual(uids({ status: 'failed' }), ['c', 'b']);
    assert.deepEqual(uids({ provider: 'x', status: 'failed' }), ['c']);
    assert.deepEqual(uids({ provider: 'x', status: 'in_progress' }), ['d']);
    assert.deepEqual(uids({ provider: "x' OR 1=1 --" }), []);
    assert.deepEqual(uids({ provider: '' }), []);
    assert.deepEqual(uids({ provider: undefined, status: undefined, cursor: undefined }), ['d', 'c', 'b', 'a']);
  });

  it('has a next page exactly when there is more', () => {
    for (const uid of ['a', 'b', 'c', 'd']) addEnded(uid, { provider: uid < 'c' ? 'x' : 'y' });
    assert.equal(store.history({ limit: 4 }).nextCursor, null);
    assert.equal(store.history({ limit: 5 }).nextCursor, null);
    assert.equal(typeof store.history({ limit: 3 }).nextCursor, 'string');
    assert.equal(store.history({ limit: 2, provider: 'x' }).nextCursor, null);
    assert.deepEqual(store.history({ limit: 2, provider: 'none' }), { tasks: [], nextCursor: null });
    assert.deepEqual(uids({ cursor: '0' }), []);
    assert.deepEqual(uids({ cursor: '999999999999999' }), ['d', 'c', 'b', 'a']);
  });

  for (const size of [1, 2, 3, 7]) {
    it(`has every task once over its pages of ${size}, while new ones arrive and running ones end`, () => {
      const all = Array.from({ length: 9 }, (_, index) => `u${index}`);
      for (const uid of all) store.insert(makeTask({ uid, provider: uid }));
      const seen: string[] = [];
      let cursor: string | undefined;
      for (let page = 0; ; page++) {
        const { tasks, nextCursor } = store.history({ limit: size, cursor });
        seen.push(...tasks.map(({ uid }) => uid));
        addEnded(`later-${page}`);
        store.finish(end(makeTask({ uid: `u${page % 9}` })), null);
        if (nextCursor === null) break;
        cursor = nextCursor;
      }
      assert.deepEqual(seen, all.toReversed());
    });
  }

  it('goes on where it was though the tasks at the cursor are gone', () => {
    for (const uid of ['a', 'b', 'c', 'd']) addEnded(uid);
    const { nextCursor } = store.history({ limit: 2 });
    store = makeStore(1);
    assert.deepEqual(uids({ cursor: nextCursor ?? undefined }), []);
    addEnded('e');
    assert.deepEqual(uids(), ['e']);
    assert.deepEqual(uids({ cursor: nextCursor ?? undefined }), []);
  });

  it('never uses a place in the order again', () => {
    const maxSeq = () => Number(database.prepare('SELECT max(seq) AS n FROM tasks').get()?.['n']);
    addEnded('a');
    const before = maxSeq();
    database.exec('DELETE FROM tasks');
    addEnded('b');
    assert.ok(maxSeq() > before);
  });

  it('has pages of no more than a mebibyte, or of one task', () => {
    const result = 'x'.repeat(400 * 1024);
    for (const uid of ['a', 'b', 'c', 'd', 'e']) addEnded(uid, uid === 'c' ? { parameters: { result } } : { result });
    addEnded('f', { result: 'x'.repeat(3 * 1024 * 1024) });
    const pages: string[] = [];
    let cursor: string | undefined;
    do {
      const { tasks, nextCursor } = store.history({ limit: 4, cursor });
      pages.push(tasks.map(({ uid }) => uid).join(''));
      cursor = nextCursor ?? undefined;
    } while (cursor !== undefined);
    assert.deepEqual(pages, ['f', 'ed', 'cb', 'a']);
    addEnded('g'); // Nothing is held by a page that ended early.
    assert.deepEqual(uids({ limit: 1 }), ['g']);
  });

  it('lets go of the database when a page ends early', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'loader-store-'));
    try {
      database = await openTaskDatabase(folder, logger);
      store = makeStore();
      for (const uid of ['a', 'b', 'c']) addEnded(uid);
      assert.equal(store.history({ limit: 1 }).tasks.length, 1);
      addEnded('d');
      assert.equal(database.prepare('PRAGMA wal_checkpoint(TRUNCATE)').get()?.['busy'], 0);
      database.close();
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

describe('an end that can not be written', () => {
  it('counts all the same, and is written before the next change', () => {
    const task = makeTask({ uid: 'u' });
    store.insert(task);
    refuseWrites(true);
    const ended = end(task);
    store.finish(ended, null);
    assert.equal(logLines.filter((line) => line.includes('"level":"error"')).length, 1);
    assert.match(logLines[0] ?? '', /"task":"u".*could not be written yet/);
    assert.deepEqual(store.find('u'), ended);
    assert.deepEqual(store.history({ limit: 5 }).tasks, [ended]);
    assert.deepEqual(
      store.unfinished().map(({ status }) => status),
      ['complete'],
    );
    assert.equal(database.prepare('SELECT status FROM tasks').get()?.['status'], 'in_progress');
    assert.throws(() => {
      store.insert(makeTask({ uid: 'v' }));
    }, isUnavailable);
    refuseWrites(false);
    store.insert(makeTask({ uid: 'v' })); // Of the same provider: the end of `u` went first.
    assert.deepEqual(makeStore().find('u'), ended);
    assert.deepEqual(store.find('v')?.status, 'in_progress');
  });

  it('is written by a flush, once', () => {
    store = makeStore(2);
    for (const uid of ['a', 'b', 'c']) store.insert(makeTask({ uid, provider: uid }));
    refuseWrites(true);
    for (const uid of ['a', 'b', 'c'])
      store.finish(end(makeTask({ uid }), { status: 'interrupted', progress: 1 }), uid === 'b' ? 2 : null);
    assert.throws(() => store.flush(), isUnavailable);
    refuseWrites(false);
    store.flush();
    assert.equal(database.prepare("SELECT count(*) AS n FROM tasks WHERE status = 'interrupted'").get()?.['n'], 2);
    assert.deepEqual(
      store.pendingRetries().map(({ task }) => task.uid),
      ['b'],
    );
    store.flush(); // Would be refused by the database, if it wrote an end again.
    addEnded('d');
    assert.deepEqual(uids(), ['d', 'b']);
  });

  it('is counted once, however often its writing fails', () => {
    store = makeStore(10);
    for (const uid of ['a', 'b', 'c']) addEnded(uid);
    store.insert(makeTask({ uid: 'u' }));
    refuseWrites(true);
    store.finish(end(makeTask({ uid: 'u' })), null);
    refuseWrites(false);
    for (let attempt = 0; attempt < 5; attempt++) {
      assert.throws(() => {
        store.insert(makeTask({ uid: 'c' })); // It is taken: nothing of this is kept.
      }, isUnavailable);
    }
    for (const uid of ['d', 'e', 'f', 'g', 'h', 'i']) addEnded(uid);
    assert.equal(uids().length, 10);
    addEnded('j');
    assert.equal(uids().length, 10);
  });

  it('is in the place of what the database has, in the history of its state', () => {
    const task = makeTask({ uid: 'u' });
    store.insert(task);
    refuseWrites(true);
    store.finish(end(task), null);
    assert.deepEqual(uids({ status: 'in_progress' }), []);
    assert.deepEqual(uids({ status: 'complete' }), ['u']);
  });

  it('does not lose its log, nor the number of tasks, on a disk that is really full', () => {
    store = makeStore(2);
    store.insert(makeTask({ uid: 'u' }));
    const pages = Number(database.prepare('PRAGMA page_count').get()?.['page_count']);
    database.exec(`PRAGMA max_page_count = ${pages}`);
    const ended = end(makeTask({ uid: 'u' }), { result: 'x'.repeat(50_000) });
    store.finish(ended, null);
    assert.deepEqual(store.find('u'), ended);
    assert.match(logLines.join(''), /the disk is full/);
    assert.throws(() => store.addLine('u', makeLine(1, 'y'.repeat(50_000))), /the disk is full/);
    assert.equal(database.isTransaction, false);
    database.exec('PRAGMA max_page_count = 100000');
    store.addLine('u', makeLine(1));
    assert.deepEqual(makeStore(2).find('u'), ended);
    addEnded('v');
    addEnded('w');
    assert.deepEqual(uids(), ['w', 'v']);
  });
});

describe('a store whose database is gone', () => {
  it('says so from every method but the one that never fails', () => {
    const task = makeTask({ uid: 'u' });
    store.insert(task);
    database.close();
    for (const method of [
      () => store.insert(task),
      () => store.saveProgress(task),
      () => store.addLine('u', makeLine(1)),
      () => store.flush(),
      () => store.insertRetry(task),
      () => store.dropRetry('u'),
      () => store.find('u'),
      () => store.unfinished(),
      () => store.pendingRetries(),
      () => store.lines('u', 0),
      () => store.lineCount('u'),
      () => store.history({ limit: 1 }),
      () => makeStore(),
    ]) {
      assert.throws(method, isUnavailable);
    }
    store.finish(end(task), null);
  });

  it('changes nothing where a part of a change fails', () => {
    store.insert(makeTask({ uid: 'a' }));
    const ended = end(makeTask({ uid: 'a' }), { status: 'interrupted', progress: 1 });
    store.finish(ended, 2);
    addEnded('b');
    // The retry has a uid that is taken: neither is it stored, nor is its plan dropped.
    assert.throws(() => {
      store.insertRetry(makeTask({ uid: 'b', retryOf: 'a' }));
    }, isUnavailable);
    assert.deepEqual(store.pendingRetries(), [{ task: ended, attempt: 2 }]);
    assert.equal(count('tasks'), 2);
  });
});

describe('a damaged row', () => {
  const damages: readonly (readonly [column: string, value: string | number | bigint])[] = [
    ['parameters', '{"a":'],
    ['parameters', '[]'],
    ['result', 'nul'],
    ['uid', 'a b'],
    ['progress', 101],
    ['progress', -1],
    ['bytes_done', 2n ** 60n],
    ['bytes_total', -5],
    ['created_at', 2n ** 62n],
    ['finished_at', -1],
    ['attempt', -1],
    ['retry_of', ''],
    ['schedule_id', 'a\nb'],
  ];

  for (const [column, value] of damages) {
    it(`is left out of every answer, and hides no other one: ${column} ${JSON.stringify(String(value))}`, () => {
      for (const uid of ['a', 'b', 'c']) addEnded(uid);
      database.exec('DROP TRIGGER finished_tasks_stay');
      database.prepare(`UPDATE tasks SET ${column} = ? WHERE uid = 'b'`).run(value);
      for (let i = 0; i < 2; i++) assert.deepEqual(uids(), ['c', 'a']);
      assert.equal(store.find('b'), undefined);
      const told = logLines.filter((line) => line.includes("A row of the tasks' database is damaged"));
      assert.equal(told.length, 1);
      assert.match(told[0] ?? '', column === 'uid' ? /"uid":"a b"/ : /"uid":"b"/);
    });
  }

  it('of an unfinished task, or of one that is to begin anew, holds up no start', () => {
    store.insert(makeTask({ uid: 'a' }));
    store.insert(makeTask({ uid: 'b', provider: 'q' }));
    addEnded('c', { status: 'interrupted' });
    database.exec(
      "DROP TRIGGER finished_tasks_stay; INSERT INTO pending_retries SELECT seq, 2 FROM tasks WHERE uid = 'c'",
    );
    database.exec("UPDATE tasks SET parameters = 'x' WHERE uid IN ('a', 'c')");
    assert.deepEqual(
      store.unfinished().map(({ uid }) => uid),
      ['b'],
    );
    assert.deepEqual(store.pendingRetries(), []);
  });

  it('of a log is left out of it, and not counted where its number is none', () => {
    store.insert(makeTask({ uid: 'a' }));
    for (const line of [1, 2, 3]) store.addLine('a', makeLine(line));
    database.exec(
      "UPDATE task_logs SET level = 'inf' WHERE line = 2; UPDATE task_logs SET line = 1 << 40 WHERE line = 3",
    );
    assert.deepEqual(store.lines('a', 0), [makeLine(1)]);
    assert.equal(store.lineCount('a'), 2);
  });
});

it('damage of the database that is found in use raises the alarm', async () => {
  addEnded('a');
  database.exec('DROP TABLE task_logs');
  assert.throws(() => store.lines('a', 0), isUnavailable);
  await store.damaged;
});
