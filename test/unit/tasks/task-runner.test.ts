import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeEach, describe, it } from 'node:test';
import { InputError, LoaderError } from '../../../src/errors.ts';
import { Type } from '../../../src/json-schemas.ts';
import { PartialResultError } from '../../../src/tasks/provider.ts';
import { openTaskDatabase } from '../../../src/tasks/task-database.ts';
import type { Task } from '../../../src/tasks/task.ts';
import { ControlledProvider, TaskLab } from '../../support/task-lab.ts';
import { settle } from '../../../lab/waiting.ts';

const START_MS = Date.now();

let nowMs = START_MS;
let a = new ControlledProvider('a');
let b = new ControlledProvider('b');
let lab = new TaskLab([a, b]);

beforeEach(() => {
  nowMs = START_MS;
  a = new ControlledProvider('a');
  b = new ControlledProvider('b');
  lab = new TaskLab([a, b], { now: () => nowMs });
});

function find(uid: string): Task {
  return lab.runner.find(uid);
}

/** What is on disk, whatever the runner knows. */
function row(uid: string): Record<string, unknown> {
  return { ...lab.database.prepare('SELECT * FROM tasks WHERE uid = ?').get(uid) };
}

describe('a task', () => {
  it('is answered before it runs, and is in progress and stored then', async () => {
    const task = lab.begin('a', { x: 1 });
    assert.equal(a.runs.length, 0);
    assert.match(task.uid, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const expected: Task = {
      uid: task.uid,
      provider: 'a',
      status: 'in_progress',
      progress: 0,
      bytesDone: 0,
      bytesTotal: null,
      waitingFor: null,
      parameters: { x: 1 },
      result: null,
      error: null,
      code: null,
      attempt: 1,
      retryOf: null,
      scheduleId: null,
      createdAtMs: START_MS,
      finishedAtMs: null,
    };
    assert.deepEqual(task, expected);
    assert.deepEqual(lab.stored(task.uid), expected);
    assert.deepEqual(find(task.uid), expected);
    await settle();
    assert.deepEqual(a.last.parameters, { x: 1 });
    assert.equal(a.last.context.isUnattended, false);
  });

  it('is complete when its run is, with what the run answered', async () => {
    const task = lab.begin('a');
    await settle();
    nowMs += 500;
    a.last.complete({ done: [1, 2] });
    await settle();
    const ended = {
      ...task,
      status: 'complete',
      progress: 100,
      result: { done: [1, 2] },
      finishedAtMs: START_MS + 500,
    };
    assert.deepEqual(find(task.uid), ended);
    assert.deepEqual(lab.stored(task.uid), ended);
    assert.deepEqual(lab.runner.history({ limit: 5 }).tasks, [ended]);
    assert.deepEqual(lab.texts(task.uid), []);
  });

  it('is the only one of its provider: twenty at once give one', async () => {
    const tasks = Array.from({ length: 20 }, () => lab.runner.create('a', {}));
    assert.equal(tasks.filter((task) => task !== undefined).length, 1);
    assert.notEqual(tasks[0], undefined);
    await settle();
    assert.equal(a.runs.length, 1);
    assert.notEqual(lab.runner.create('b', {}), undefined);
    assert.equal(lab.runner.create('a', {}), undefined);
    a.last.complete();
    await settle();
    const again = await Promise.all(
      Array.from({ length: 20 }, async () => Promise.resolve(lab.runner.create('a', {}))),
    );
    assert.equal(again.filter((task) => task !== undefined).length, 1);
    assert.equal(lab.store.history({ limit: 100 }).tasks.length, 3);
  });

  it('fails with the code and message of a LoaderError, which its log has too', async () => {
    const task = lab.begin('a');
    await settle();
    a.last.context.report({ bytesDone: 30, bytesTotal: 100 });
    a.last.fail(new LoaderError('cdn_unreachable', 'No connection.', { cause: new Error('hush') }));
    await settle();
    const { status, code, error, result, progress, bytesDone, bytesTotal, finishedAtMs } = find(task.uid);
    assert.deepEqual([status, code, error, result], ['failed', 'cdn_unreachable', 'No connection.', null]);
    assert.deepEqual([progress, bytesDone, bytesTotal, finishedAtMs], [30, 30, 100, START_MS]);
    assert.deepEqual(
      lab.runner.lines(task.uid, 0).map(({ level, text }) => [level, text]),
      [['error', 'No connection.']],
    );
  });

  for (const thrown of [new Error('hush'), new TypeError('hush'), 'hush', undefined, null]) {
    it(`fails with internal_error, and no more than that, for another error: ${String(thrown)}`, async () => {
      const task = lab.begin('a');
      await settle();
      a.last.fail(thrown);
      await settle();
      const failed = find(task.uid);
      assert.deepEqual([failed.status, failed.code], ['failed', 'internal_error']);
      assert.doesNotMatch(JSON.stringify([failed, lab.runner.lines(task.uid, 0)]), /hush/);
      assert.match(failed.error ?? '', /the log of the Loader has the details/);
      assert.ok(lab.logLines.some((line) => line.includes('"level":"error"') && line.includes('A task failed')));
      assert.ok(!(thrown instanceof Error) || lab.logLines.some((line) => line.includes('hush')));
    });
  }

  it('that fails after a part of its work keeps the result of that part', async () => {
    const task = lab.begin('a');
    await settle();
    a.last.fail(new PartialResultError('prefetch_incomplete', 'One of two.', { one: true }));
    await settle();
    const { status, code, error, result } = find(task.uid);
    assert.deepEqual([status, code, error, result], ['failed', 'prefetch_incomplete', 'One of two.', { one: true }]);
  });

  it('fails when its provider throws at once', async () => {
    const thrower = new ControlledProvider('thrower');
    const provider = {
      ...thrower.provider,
      prepare: () => ({
        parameters: {},
        hasSecrets: false,
        work: () => {
          throw new LoaderError('cache_unusable', 'No.');
        },
      }),
    };
    lab = new TaskLab([a, Object.assign(thrower, { provider })]);
    const task = lab.begin('thrower');
    await settle();
    assert.deepEqual([find(task.uid).status, find(task.uid).code], ['failed', 'cache_unusable']);
    assert.notEqual(lab.runner.create('thrower', {}), undefined);
  });

  it('is refused for a provider that there is not', () => {
    lab = new TaskLab([b, a]);
    for (const name of ['c', '', 'A', 'toString', '__proto__']) {
      assert.throws(
        () => lab.runner.create(name, {}),
        (error) => {
          assert.ok(error instanceof InputError);
          assert.deepEqual(error.faults, [
            { type: 'literal_error', path: ['provider'], message: "Input should be 'a' or 'b'" },
          ]);
          return true;
        },
      );
    }
    assert.deepEqual(lab.runner.list(), []);
  });

  it('is refused with parameters that its provider does not take, though one runs', () => {
    const strict = new ControlledProvider('strict', {
      parameters: Type.Object({ x: Type.Number() }),
    });
    lab = new TaskLab([strict]);
    assert.throws(() => lab.runner.create('strict', {}), isFaultAt('x'));
    lab.begin('strict', { x: 1 });
    assert.throws(() => lab.runner.create('strict', { x: 'one' }), isFaultAt('x'));
    assert.throws(() => lab.runner.check('strict', {}), isFaultAt('parameters', 'x'));
    assert.throws(() => lab.runner.check('c', {}), isFaultAt('provider'));
    assert.equal(lab.runner.check('strict', { x: 1 }).hasSecrets, false);
    assert.equal(lab.store.history({ limit: 5 }).tasks.length, 1);
  });

  it('does not begin where it can not be stored, and can be asked for again', async () => {
    lab.refuseWrites(true);
    assert.throws(() => lab.runner.create('a', {}), { code: 'task_store_unavailable' });
    await settle();
    assert.equal(a.runs.length, 0);
    assert.deepEqual(lab.runner.list(), []);
    lab.refuseWrites(false);
    lab.begin('a');
    await settle();
    assert.equal(a.runs.length, 1);
  });

  it('that a schedule began says so', async () => {
    const task = lab.runner.create('a', {}, 'the-schedule');
    assert.equal(task?.scheduleId, 'the-schedule');
    assert.equal(lab.stored(task.uid).scheduleId, 'the-schedule');
    await settle();
    assert.equal(a.last.context.isUnattended, true);
  });

  it('that is not there is not found', async () => {
    for (const uid of ['no', '', "' OR 1=1 --"]) {
      assert.throws(() => lab.runner.find(uid), { code: 'task_not_found' });
      assert.throws(() => lab.runner.lines(uid, 0), { code: 'task_not_found' });
      assert.throws(() => lab.runner.isPastEnd(uid, { lines: 0, reports: 0 }), { code: 'task_not_found' });
      assert.throws(() => lab.runner.watch(uid, { lines: 0, reports: 0 }, new AbortController().signal), {
        code: 'task_not_found',
      });
      await assert.rejects(lab.runner.cancel(uid), { code: 'task_not_found' });
    }
  });
});

describe('the list of running tasks', () => {
  it('has them, and for a second those that ended', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const task = lab.begin('a');
    const other = lab.begin('b');
    await settle();
    assert.deepEqual(lab.runner.list(), [task, other]);
    a.last.context.report({ bytesDone: 1, bytesTotal: 2 });
    assert.equal(lab.runner.list()[0]?.progress, 50);
    a.last.complete('done');
    await settle();
    assert.deepEqual(
      lab.runner.list().map(({ uid, status }) => [uid, status]),
      [
        [task.uid, 'complete'],
        [other.uid, 'in_progress'],
      ],
    );
    // Another of the same provider may run beside it.
    const next = lab.begin('a');
    assert.deepEqual(
      lab.runner.list().map(({ uid }) => uid),
      [task.uid, other.uid, next.uid],
    );
    t.mock.timers.tick(999);
    assert.equal(lab.runner.list().length, 3);
    t.mock.timers.tick(1);
    assert.deepEqual(
      lab.runner.list().map(({ uid }) => uid),
      [other.uid, next.uid],
    );
  });

  it('keeps no process alive', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
    const before = timers();
    lab.begin('a');
    await settle();
    a.last.complete();
    await settle();
    assert.equal(timers(), before);
  });
});

describe('the progress of a task', () => {
  it('never goes back, and is less than 100 until the task is complete', async () => {
    const task = lab.begin('a');
    await settle();
    const { context } = a.last;
    const reports = [
      [{ bytesDone: 0, bytesTotal: null }, 0, 0, null],
      [{ bytesDone: 10, bytesTotal: null }, 0, 10, null],
      [{ bytesDone: 10, bytesTotal: 40 }, 25, 10, 40],
      [{ bytesDone: 5, bytesTotal: 40 }, 25, 10, 40],
      [{ bytesDone: 20, bytesTotal: 0 }, 25, 20, 0],
      [{ bytesDone: 20, bytesTotal: 80, percent: 12 }, 25, 20, 80],
      [{ bytesDone: 20, bytesTotal: 80, percent: 60.99 }, 60, 20, 80],
      [{ bytesDone: 79, bytesTotal: 80, percent: 0 }, 60, 79, 80],
      [{ bytesDone: 79, bytesTotal: 80 }, 98, 79, 80],
      [{ bytesDone: 80, bytesTotal: 80 }, 99, 80, 80],
      [{ bytesDone: 90, bytesTotal: 80 }, 99, 90, 80],
      [{ bytesDone: 0, bytesTotal: null, percent: 100 }, 99, 90, null],
      [{ bytesDone: 0, bytesTotal: null, percent: 1e9 }, 99, 90, null],
      [{ bytesDone: -5, bytesTotal: null, percent: -1 }, 99, 90, null],
    ] as const;
    for (const [report, progress, bytesDone, bytesTotal] of reports) {
      context.report(report);
      const shown = find(task.uid);
      assert.deepEqual([shown.progress, shown.bytesDone, shown.bytesTotal], [progress, bytesDone, bytesTotal]);
    }
    a.last.complete();
    await settle();
    const { progress, bytesDone, bytesTotal } = lab.stored(task.uid);
    assert.deepEqual([progress, bytesDone, bytesTotal], [100, 90, null]);
  });

  it('is as it was when the task fails', async () => {
    const task = lab.begin('a');
    await settle();
    a.last.context.report({ bytesDone: 100, bytesTotal: 100 });
    a.last.fail(new Error('no'));
    await settle();
    assert.equal(find(task.uid).progress, 99);
  });

  it('is stored before anybody sees it; bytes once a second', async () => {
    const task = lab.begin('a');
    await settle();
    const { context } = a.last;
    const bytes = () => [row(task.uid)['progress'], row(task.uid)['bytes_done'], row(task.uid)['bytes_total']];
    context.report({ bytesDone: 20, bytesTotal: 1_000 });
    assert.deepEqual(bytes(), [2, 20, 1_000]);
    nowMs += 999;
    context.report({ bytesDone: 21, bytesTotal: 1_000 });
    assert.deepEqual(bytes(), [2, 20, 1_000]);
    assert.equal(find(task.uid).bytesDone, 21);
    assert.equal(lab.runner.history({ limit: 1 }).tasks[0]?.bytesDone, 21);
    nowMs += 1;
    context.report({ bytesDone: 22, bytesTotal: 1_000 });
    assert.deepEqual(bytes(), [2, 22, 1_000]);
    context.report({ bytesDone: 23, bytesTotal: 1_000 });
    assert.deepEqual(bytes(), [2, 22, 1_000]);
  });

  it('is stored also after the clock was set back', async () => {
    const task = lab.begin('a');
    await settle();
    nowMs -= 365 * 24 * 3600 * 1000;
    a.last.context.report({ bytesDone: 1, bytesTotal: 100_000 });
    nowMs += 5_000;
    a.last.context.report({ bytesDone: 2, bytesTotal: 100_000 });
    assert.notEqual(row(task.uid)['bytes_done'], 0);
  });

  it('goes on where it can not be stored', async () => {
    const task = lab.begin('a');
    await settle();
    lab.refuseWrites(true);
    a.last.context.report({ bytesDone: 50, bytesTotal: 100 });
    assert.equal(find(task.uid).progress, 50);
    assert.ok(lab.logLines.some((line) => line.includes('"level":"warn"') && line.includes('could not be written')));
    lab.refuseWrites(false);
    a.last.complete();
    await settle();
    assert.equal(row(task.uid)['status'], 'complete');
  });

  it('that is no number is ignored', async () => {
    const task = lab.begin('a');
    await settle();
    const { context } = a.last;
    context.report({ bytesDone: 10, bytesTotal: 100 });
    const before = find(task.uid);
    for (const report of [
      { bytesDone: NaN, bytesTotal: 100 },
      { bytesDone: 50, bytesTotal: NaN },
      { bytesDone: 50, bytesTotal: 100, percent: NaN },
      { bytesDone: Infinity, bytesTotal: 100 },
      { bytesDone: 50, bytesTotal: Infinity },
    ]) {
      context.report(report);
      assert.deepEqual(find(task.uid), before, JSON.stringify(report));
    }
    context.report({ bytesDone: 20, bytesTotal: 100 });
    assert.equal(find(task.uid).progress, 20);
    a.last.fail(new LoaderError('cdn_error', 'No.'));
    await settle();
    assert.equal(row(task.uid)['status'], 'failed');
  });

  it('of a fraction of a byte spoils nothing', async () => {
    const task = lab.begin('a');
    await settle();
    a.last.context.report({ bytesDone: 0.5, bytesTotal: 1.5 });
    a.last.complete('done');
    await settle();
    assert.equal(row(task.uid)['status'], 'complete');
    lab.begin('b');
  });

  it('or a line of the log that comes after the end is ignored', async () => {
    const task = lab.begin('a');
    await settle();
    const { context, complete } = a.last;
    complete('done');
    await settle();
    const ended = find(task.uid);
    context.report({ bytesDone: 1, bytesTotal: 1 });
    context.log('error', 'late');
    assert.deepEqual(find(task.uid), ended);
    assert.deepEqual(lab.stored(task.uid), ended);
    assert.deepEqual(lab.texts(task.uid), []);
    assert.deepEqual(ended, { ...task, status: 'complete', progress: 100, result: 'done', finishedAtMs: nowMs });
  });
});

describe('a result that can not be stored', () => {
  for (const [what, result] of [
    ['a bigint', 1n],
    ['a function', () => 1],
  ] as const) {
    it(`fails its own task, and no other: ${what}`, async () => {
      const { uid } = lab.begin('a');
      await settle();
      a.last.complete(result as unknown as null);
      await settle();
      const failed = lab.stored(uid);
      assert.deepEqual([failed.status, failed.code, failed.result], ['failed', 'internal_error', null]);
      assert.ok(lab.logLines.some((line) => line.includes('the result of a task is not JSON')));
      const other = lab.begin('b');
      await settle();
      b.last.complete('good');
      await settle();
      assert.equal(row(other.uid)['status'], 'complete');
      lab.begin('a');
    });
  }

  it('is not kept of a part either', async () => {
    const { uid } = lab.begin('a');
    await settle();
    a.last.fail(new PartialResultError('prefetch_incomplete', 'One of two.', 1n as unknown as null));
    await settle();
    const failed = lab.stored(uid);
    assert.deepEqual([failed.status, failed.code, failed.result], ['failed', 'prefetch_incomplete', null]);
    lab.begin('b');
    lab.begin('a');
  });
});

describe('the log of a task', () => {
  it('has its lines with their levels, numbered from 1', async () => {
    const task = lab.begin('a');
    await settle();
    a.last.context.log('info', 'one');
    nowMs += 5;
    a.last.context.log('warn', '');
    a.last.context.log('error', 'three\n<script>');
    assert.deepEqual(lab.runner.lines(task.uid, 0), [
      { line: 1, timeMs: START_MS, level: 'info', text: 'one' },
      { line: 2, timeMs: START_MS + 5, level: 'warn', text: '' },
      { line: 3, timeMs: START_MS + 5, level: 'error', text: 'three\n<script>' },
    ]);
    assert.deepEqual(lab.runner.lines(task.uid, 2), lab.runner.lines(task.uid, 0).slice(2));
  });

  it('has at most 1000 lines of its run, the last of which says so, and one for a bad end', async () => {
    const task = lab.begin('a');
    await settle();
    for (let line = 1; line <= 1_005; line++) a.last.context.log('info', `line ${line}`);
    assert.equal(lab.texts(task.uid).length, 1_000);
    a.last.fail(new LoaderError('cdn_error', 'No.'));
    await settle();
    assert.deepEqual(
      lab.runner.lines(task.uid, 998).map(({ line, level, text }) => [line, level, text]),
      [
        [999, 'info', 'line 999'],
        [1_000, 'warn', 'No more than 1000 lines are kept.'],
        [1_001, 'error', 'No.'],
      ],
    );
  });

  it('has lines of at most 1000 characters', async () => {
    const task = lab.begin('a');
    await settle();
    a.last.context.log('info', 'x'.repeat(1_000));
    a.last.context.log('info', 'y'.repeat(1_001));
    assert.deepEqual(
      lab.texts(task.uid).map((text) => text.length),
      [1_000, 1_000],
    );
  });

  it('leaves out what can not be written, without a hole', async () => {
    const task = lab.begin('a');
    await settle();
    a.last.context.log('info', 'one');
    lab.refuseWrites(true);
    a.last.context.log('info', 'lost');
    lab.refuseWrites(false);
    a.last.context.log('info', 'two');
    assert.deepEqual(
      lab.runner.lines(task.uid, 0).map(({ line, text }) => [line, text]),
      [
        [1, 'one'],
        [2, 'two'],
      ],
    );
  });
});

describe('cancelling', () => {
  it('returns when the side effects have stopped', async () => {
    const task = lab.begin('a');
    await settle();
    const { signal } = a.last.context;
    a.last.context.report({ bytesDone: 1, bytesTotal: 4 });
    const order: string[] = [];
    const cancelled = Promise.all(
      [1, 2].map(async () => {
        const answer = await lab.runner.cancel(task.uid);
        order.push('answered');
        return answer;
      }),
    );
    await settle();
    assert.equal(signal.aborted, true);
    assert.equal((signal.reason as LoaderError).code, 'task_cancelled');
    assert.equal(find(task.uid).status, 'in_progress');
    assert.equal(lab.runner.create('a', {}), undefined);
    a.last.context.log('info', 'tidying up');
    order.push('stopped');
    a.last.fail(new Error('whatever it says'));
    const [ended, second] = await cancelled;
    assert.deepEqual(order, ['stopped', 'answered', 'answered']);
    assert.ok(ended !== undefined);
    assert.deepEqual(second, ended);
    assert.deepEqual(find(task.uid), ended);
    assert.deepEqual(
      [ended.status, ended.code, ended.error, ended.result, ended.progress],
      ['cancelled', 'task_cancelled', 'The task was cancelled.', null, 25],
    );
    assert.deepEqual(lab.texts(task.uid), ['tidying up', 'The task was cancelled.']);
    assert.deepEqual(lab.store.pendingRetries(), []);
    lab.begin('a');
  });

  it('of a task that has ended leaves it as it is', async () => {
    const task = lab.begin('a');
    await settle();
    a.last.complete(1);
    await settle();
    const ended = find(task.uid);
    assert.deepEqual(await lab.runner.cancel(task.uid), ended);
    assert.equal(a.last.context.signal.aborted, false);
    assert.deepEqual(find(task.uid), ended);
  });

  it('in the moment in which it ends leaves it as it is', async () => {
    const task = lab.begin('a');
    await settle();
    a.last.complete(1);
    assert.equal((await lab.runner.cancel(task.uid)).status, 'complete');
    assert.equal(find(task.uid).status, 'complete');
  });

  it('that comes too late for the provider leaves it complete', async () => {
    const task = lab.begin('a');
    await settle();
    const cancelled = lab.runner.cancel(task.uid);
    a.last.complete('all the same');
    const ended = await cancelled;
    assert.deepEqual([ended.status, ended.result, ended.code], ['complete', 'all the same', null]);
  });

  it('before the run has begun lets it see that', async () => {
    const task = lab.begin('a');
    const cancelled = lab.runner.cancel(task.uid);
    await settle();
    assert.equal(a.last.context.signal.aborted, true);
    a.last.fail(new Error('aborted'));
    assert.equal((await cancelled).status, 'cancelled');
  });

  it('does not touch the tasks of other providers', async () => {
    const task = lab.begin('a');
    lab.begin('b');
    await settle();
    void lab.runner.cancel(task.uid);
    assert.equal(b.last.context.signal.aborted, false);
    a.last.fail(new Error('aborted'));
    await settle();
    assert.deepEqual(
      lab.runner.list().map(({ status }) => status),
      ['cancelled', 'in_progress'],
    );
  });
});

describe('a task that has ended', () => {
  it('begins once more as another task, with its parameters', async () => {
    const first = lab.begin('a', { x: 5 });
    await settle();
    a.last.fail(new LoaderError('cdn_unreachable', 'no'));
    await settle();
    const second = lab.runner.retry(first.uid);
    assert.deepEqual(
      [second.retryOf, second.attempt, second.parameters, second.status],
      [first.uid, 2, { x: 5 }, 'in_progress'],
    );
    await settle();
    assert.deepEqual(a.last.parameters, { x: 5 });
    assert.equal(row(second.uid)['retry_of'], first.uid);
    a.last.complete();
    await settle();
    assert.equal(lab.runner.retry(second.uid).attempt, 3); // Also one that is complete.
  });

  it('does not while one of its provider runs, be it itself', async () => {
    const { uid } = lab.begin('a');
    await settle();
    const busy = {
      code: 'provider_busy',
      message: `Task ${uid} of the provider a is in progress: wait for its end, or DELETE /tasks/${uid}.`,
    };
    assert.throws(() => lab.runner.retry(uid), busy);
    assert.throws(() => lab.runner.begin('a', {}), busy);
    assert.deepEqual(lab.runner.running('a').uid, uid);
    assert.throws(() => lab.runner.retry('none'), { code: 'task_not_found' });
  });

  it('does not where its parameters held a secret, or the provider is gone', async () => {
    const secret = Type.Object({ password: Type.String({ writeOnly: true }) });
    a = new ControlledProvider('a', { parameters: secret });
    lab = new TaskLab([a, b]);
    const [first, second] = [lab.begin('a', { password: 'hush' }), lab.begin('b')];
    await settle();
    for (const { last } of [a, b]) last.complete();
    await settle();
    assert.throws(() => lab.runner.retry(first.uid), { code: 'task_not_repeatable' });
    lab.restart([a]);
    assert.throws(() => lab.runner.retry(second.uid), { code: 'task_not_repeatable' });
  });
});

describe('the history', () => {
  it('has no tasks of a provider that there is not: the name is wrong', () => {
    assert.throws(
      () => lab.runner.history({ provider: 'typo', limit: 10 }),
      (error) => error instanceof InputError && error.source === 'query' && error.faults[0]?.path[0] === 'provider',
    );
  });
});

describe('a provider', () => {
  it('is busy while a task of it runs', async () => {
    assert.equal(lab.runner.isBusy('a'), false);
    const { uid } = lab.begin('a');
    assert.deepEqual([lab.runner.isBusy('a'), lab.runner.isBusy('b'), lab.runner.isBusy('c')], [true, false, false]);
    await settle();
    void lab.runner.cancel(uid);
    assert.equal(lab.runner.isBusy('a'), true);
    a.last.complete();
    await settle();
    assert.equal(lab.runner.isBusy('a'), false);
  });
});

describe('work that begins elsewhere', () => {
  it('is a task like others', async () => {
    a.beginOutside({ email: 'e' });
    const [task] = lab.runner.list();
    assert.ok(task);
    assert.deepEqual([task.parameters, task.attempt, task.scheduleId], [{ email: 'e' }, 1, null]);
    assert.deepEqual(lab.stored(task.uid), task);
    assert.equal(lab.runner.create('a', {}), undefined);
    await settle();
    a.last.complete('done');
    await settle();
    assert.equal(find(task.uid).result, 'done');
  });

  it('is not taken in beside a task of the same provider, nor while the Loader stops', async () => {
    lab.begin('a');
    a.beginOutside({});
    await settle();
    assert.equal(a.runs.length, 1);
    assert.ok(!lab.logLines.some((line) => line.includes('goes on without a task'))); // It is among the tasks already.
    assert.equal(lab.runner.list().length, 1);
    const stopped = lab.runner.stop();
    b.beginOutside({});
    a.last.fail(new Error('aborted'));
    await stopped;
    b.beginOutside({});
    assert.equal(lab.store.history({ limit: 5 }).tasks.length, 1);
  });

  it('goes on without a task where none can be stored', () => {
    lab.refuseWrites(true);
    a.beginOutside({});
    assert.deepEqual(lab.runner.list(), []);
    assert.ok(lab.logLines.some((line) => line.includes('goes on without a task')));
    lab.refuseWrites(false);
    lab.begin('a');
  });
});

describe('a secret among the parameters', () => {
  it('reaches the run, and nothing else: neither answers nor logs nor the files of the database', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'loader-runner-'));
    const secret = 'correct-horse-battery-staple';
    const keeper = new ControlledProvider('keeper', {
      parameters: Type.Object(
        { email: Type.String(), password: Type.String({ writeOnly: true }) },
        { additionalProperties: false },
      ),
    });
    try {
      const database = await openTaskDatabase(folder, lab.logger);
      const own = new TaskLab([keeper], { database });
      const shown: unknown[] = [];
      for (const end of ['complete', 'fail', 'cancel', 'stop'] as const) {
        const task = own.begin('keeper', { email: 'operator@example.com', password: secret });
        shown.push(task);
        await settle();
        assert.equal(keeper.last.parameters['password'], secret);
        if (end === 'complete') keeper.last.complete('done');
        else if (end === 'fail') keeper.last.fail(new LoaderError('wrong_credentials', 'Refused.'));
        const ended = end === 'cancel' ? own.runner.cancel(task.uid) : end === 'stop' ? own.runner.stop() : undefined;
        if (ended !== undefined) keeper.last.fail(new Error('aborted'));
        await ended;
        await settle();
        shown.push(own.runner.find(task.uid), own.runner.lines(task.uid, 0));
      }
      assert.throws(
        () => own.runner.create('keeper', { password: secret, email: 7 }),
        (error) => {
          shown.push(error instanceof InputError ? [error.message, error.faults] : assert.fail());
          return true;
        },
      );
      assert.equal(own.runner.check('keeper', { email: 'e', password: secret }).hasSecrets, true);
      shown.push(own.runner.history({ limit: 10 }), own.runner.list(), own.logLines);
      assert.match(JSON.stringify(shown), /operator@example\.com/);
      assert.doesNotMatch(JSON.stringify(shown), new RegExp(secret));
      const bytes = await readAll(folder); // As they are while the process runs, with its write-ahead log.
      assert.ok(bytes.includes('operator@example.com'));
      assert.ok(!bytes.includes(secret));
      database.close();
      assert.ok(!(await readAll(folder)).includes(secret));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

function isFaultAt(...path: string[]): (error: unknown) => boolean {
  return (error) => error instanceof InputError && JSON.stringify(error.faults[0]?.path) === JSON.stringify(path);
}

async function readAll(folder: string): Promise<Buffer> {
  const names = await readdir(folder);
  return Buffer.concat(await Promise.all(names.map((name) => readFile(path.join(folder, name)))));
}
