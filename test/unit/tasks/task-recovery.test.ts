import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import { Type } from '../../../src/json-schemas.ts';
import type { Task } from '../../../src/tasks/task.ts';
import { ControlledProvider, TaskLab } from '../../support/task-lab.ts';
import { settle } from '../../../lab/waiting.ts';

const START_MS = Date.now();

let nowMs = START_MS;
let again = new ControlledProvider('again', { isRepeatable: true });
let once = new ControlledProvider('once');
let lab = new TaskLab([again, once]);

beforeEach(() => {
  nowMs = START_MS;
  again = new ControlledProvider('again', { isRepeatable: true });
  once = new ControlledProvider('once');
  lab = new TaskLab([again, once], { now: () => nowMs });
});

/** Stops as the Loader does; the runs end as soon as they are asked to. */
async function stop(): Promise<void> {
  const stopped = lab.runner.stop();
  for (const provider of lab.providers) provider.runs.at(-1)?.fail(new Error('aborted'));
  await stopped;
}

/** All tasks, oldest first. */
function all(): Task[] {
  return lab.runner.history({ limit: 1_000 }).tasks.toReversed();
}

function running(): Task[] {
  return all().filter(({ status }) => status === 'in_progress');
}

describe('stopping', () => {
  it('ends when all that runs has, and lets nothing begin any more', async () => {
    lab.begin('again');
    lab.begin('once');
    await settle();
    const order: string[] = [];
    const stopped = lab.runner.stop().then(() => order.push('stopped'));
    await settle();
    for (const { last } of [again, once]) {
      assert.equal((last.context.signal.reason as LoaderError).code, 'task_interrupted');
    }
    assert.throws(() => lab.runner.create('once', {}), { code: 'shutting_down' });
    assert.throws(() => lab.runner.create('unknown', {}), { code: 'validation_failed' });
    again.last.fail(new Error('aborted'));
    await settle();
    order.push('the last task ends');
    once.last.fail(new LoaderError('cdn_error', 'not told'));
    await stopped;
    assert.deepEqual(order, ['the last task ends', 'stopped']);
    assert.throws(() => lab.runner.create('again', {}), { code: 'shutting_down' });
    for (const task of all()) {
      assert.deepEqual(
        [task.status, task.code, task.error],
        ['interrupted', 'task_interrupted', 'The Loader stopped while the task ran.'],
      );
      assert.deepEqual(lab.texts(task.uid), ['The Loader stopped while the task ran.']);
    }
    await lab.runner.stop();
  });

  it('leaves complete what completes all the same, and cancelled what was being cancelled', async () => {
    const complete = lab.begin('again');
    const cancelled = lab.begin('once');
    await settle();
    const answer = lab.runner.cancel(cancelled.uid);
    const stopped = lab.runner.stop();
    again.last.complete('done');
    once.last.fail(new Error('aborted'));
    await stopped;
    assert.equal((await answer).status, 'cancelled');
    assert.equal(lab.runner.find(complete.uid).status, 'complete');
    lab.restart();
    assert.deepEqual(running(), []);
  });

  it('with nothing that runs ends at once', async () => {
    await lab.runner.stop();
    assert.throws(() => lab.runner.create('once', {}), { code: 'shutting_down' });
  });
});

describe('a task that was interrupted', () => {
  it('by a stop begins anew at the next start, as another task, where its provider allows it', async () => {
    const [first, second] = [lab.begin('again', { x: [1] }), lab.begin('once')];
    await settle();
    again.last.context.report({ bytesDone: 50, bytesTotal: 100 });
    await stop();
    const before = all();
    nowMs += 60_000;
    lab.restart();
    assert.deepEqual(all().slice(0, 2), before);
    const [retry, ...others] = running();
    assert.deepEqual(others, []);
    assert.deepEqual(retry, {
      ...first,
      uid: retry?.uid,
      attempt: 1, // It was not to blame.
      retryOf: first.uid,
      createdAtMs: START_MS + 60_000,
    });
    assert.notEqual(retry.uid, first.uid);
    await settle();
    assert.deepEqual(again.last.parameters, { x: [1] });
    assert.equal(again.last.context.isUnattended, true);
    assert.equal(once.runs.length, 1);
    assert.equal(lab.runner.find(second.uid).status, 'interrupted');
    assert.deepEqual(lab.store.pendingRetries(), []);
  });

  it('begins anew once, and not at every later start', async () => {
    lab.begin('again');
    await settle();
    await stop();
    lab.restart();
    await settle();
    again.last.complete();
    await settle();
    for (let start = 0; start < 3; start++) lab.restart();
    assert.deepEqual(
      all().map(({ status }) => status),
      ['interrupted', 'complete'],
    );
  });

  it('by the death of the Loader is told so, and begins anew', async () => {
    const [first, second] = [lab.begin('again'), lab.begin('once')];
    await settle();
    again.last.context.report({ bytesDone: 50, bytesTotal: 100 });
    again.last.context.log('info', 'half of it');
    nowMs += 1_000;
    lab.restart();
    const error = 'The Loader died while the task ran.';
    for (const { uid, provider } of [first, second]) {
      const task = lab.runner.find(uid);
      assert.deepEqual(
        [task.status, task.code, task.error, task.finishedAtMs, task.result],
        ['interrupted', 'task_interrupted', error, START_MS + 1_000, null],
      );
      assert.equal(task.progress, provider === 'again' ? 50 : 0);
      assert.ok(
        lab.logLines.some((line) => line.includes(uid) && line.includes('death of the Loader interrupted a task')),
      );
    }
    assert.deepEqual(lab.runner.lines(first.uid, 0), [
      { line: 1, timeMs: START_MS, level: 'info', text: 'half of it' },
      { line: 2, timeMs: START_MS + 1_000, level: 'warn', text: error },
    ]);
    assert.deepEqual(lab.texts(second.uid), [error]);
    assert.deepEqual(
      running().map(({ retryOf, attempt }) => [retryOf, attempt]),
      [[first.uid, 2]],
    );
  });

  it('by its death ten times is left: it may be what kills it', async () => {
    const first = lab.begin('again', { n: 1 });
    const chain = [first.uid];
    for (let attempt = 2; attempt <= 10; attempt++) {
      lab.restart();
      const [retry] = running();
      assert.ok(retry);
      assert.deepEqual([retry.attempt, retry.retryOf], [attempt, chain.at(-1)]);
      chain.push(retry.uid);
    }
    lab.restart();
    assert.deepEqual(running(), []);
    assert.deepEqual(
      all().map(({ uid, status }) => [uid, status]),
      chain.map((uid) => [uid, 'interrupted']),
    );
    lab.restart();
    assert.equal(all().length, 10);
    await settle();
  });

  it('by a stop begins anew however often that was, and however often the Loader died before', async () => {
    lab.begin('again');
    for (let attempt = 2; attempt <= 10; attempt++) lab.restart();
    for (let stops = 0; stops < 3; stops++) {
      await settle();
      await stop();
      lab.restart();
      assert.equal(running()[0]?.attempt, 10);
    }
    lab.restart();
    assert.deepEqual(running(), []);
  });

  it('remembers the schedule that began it', async () => {
    lab.runner.create('again', {}, 'the-schedule');
    await settle();
    await stop();
    lab.restart();
    assert.equal(running()[0]?.scheduleId, 'the-schedule');
  });

  it('does not begin anew when its provider is gone, now or later', async () => {
    lab.begin('again');
    lab.begin('once');
    lab.restart([once]);
    assert.deepEqual(
      all().map(({ status }) => status),
      ['interrupted', 'interrupted'],
    );
    await settle();
    lab.restart([again, once]);
    assert.deepEqual(running(), []);
  });

  it('does not begin anew when its provider is gone after a stop', async () => {
    lab.begin('again');
    await settle();
    await stop();
    lab.restart([once]);
    assert.deepEqual(lab.store.pendingRetries(), []);
    assert.ok(lab.logLines.some((line) => line.includes('can not begin anew')));
    lab.restart([again, once]);
    assert.deepEqual(running(), []);
  });

  it('does not begin anew when its provider takes its parameters no more', async () => {
    lab.begin('again', { x: 1 });
    await settle();
    await stop();
    const parameters = Type.Object({ x: Type.Optional(Type.String()) });
    const changed = new ControlledProvider('again', { isRepeatable: true, parameters });
    lab.restart([changed, once]);
    await settle();
    assert.deepEqual([running(), changed.runs, lab.store.pendingRetries()], [[], [], []]);
    assert.ok(lab.logLines.some((line) => line.includes('can not begin anew')));
  });

  it('by the death of the Loader does not begin anew when its provider no longer allows it', () => {
    lab.begin('again');
    lab.restart([new ControlledProvider('again')]);
    assert.deepEqual(running(), []);
  });

  it('holds up no other: the rest begins anew', async () => {
    const other = new ControlledProvider('other', { isRepeatable: true });
    lab.restart([again, other]);
    lab.begin('again', { x: 1 });
    lab.begin('other');
    lab.restart([other]);
    await settle();
    assert.deepEqual(
      running().map(({ provider }) => provider),
      ['other'],
    );
  });

  it('while its end could not be written is in the state that the disk allows', async () => {
    const task = lab.begin('again');
    await settle();
    lab.refuseWrites(true);
    again.last.complete('done');
    await settle();
    assert.equal(lab.runner.find(task.uid).status, 'complete');
    lab.refuseWrites(false);
    lab.restart(); // Nobody wrote it before the death.
    assert.equal(lab.runner.find(task.uid).status, 'interrupted');
    assert.equal(running()[0]?.retryOf, task.uid);
  });
});

describe('a recovery that fails', () => {
  it('because the disk is full loses no repetition', async () => {
    lab.begin('again');
    await settle();
    await stop();
    lab.database.exec("CREATE TRIGGER full BEFORE INSERT ON tasks BEGIN SELECT RAISE(ABORT, 'full'); END");
    assert.throws(() => lab.restart(), { code: 'task_store_unavailable' });
    lab.database.exec('DROP TRIGGER full');
    lab.restart();
    assert.equal(running().length, 1);
  });
});
