import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { InputError } from '../../../src/errors.ts';
import { Type } from '../../../src/json-schemas.ts';
import { ScheduleStore } from '../../../src/tasks/schedule-store.ts';
import type { Schedule } from '../../../src/tasks/schedule.ts';
import { Schedules, type NewSchedule } from '../../../src/tasks/schedules.ts';
import { ControlledProvider, DAY_MS, HOUR_MS, TaskLab } from '../../support/task-lab.ts';
import { settle } from '../../../lab/waiting.ts';

/** A Monday. */
const START_MS = Date.parse('2026-06-01T12:00:00Z');
const MINUTE_MS = 60_000;
/** At half past each hour. */
const HOURLY: NewSchedule = { provider: 'a', parameters: {}, cron: '30 * * * *', timezone: 'UTC', catchUp: false };
const FIRST_MS = START_MS + 30 * MINUTE_MS;

const COPY_SCHEDULE = `
  INSERT INTO schedules (id, provider, parameters, cron, timezone, catch_up, created_at, next_run_at, last_run)
  SELECT ?, provider, parameters, cron, timezone, catch_up, created_at, next_run_at, last_run
  FROM schedules WHERE id = ?`;

let nowMs = START_MS;
let a = new ControlledProvider('a');
let lab = new TaskLab([a]);
let schedules = makeSchedules();

beforeEach(() => {
  nowMs = START_MS;
  a = new ControlledProvider('a', {
    parameters: Type.Object({
      x: Type.Optional(Type.Number()),
      password: Type.Optional(Type.String({ writeOnly: true })),
    }),
  });
  lab = new TaskLab([a, new ControlledProvider('b')], { now: () => nowMs, historyAgeMs: 10_000 * DAY_MS });
  schedules = makeSchedules();
  schedules.start();
});

afterEach(() => {
  schedules.stop();
});

function makeSchedules(): Schedules {
  const { runner, logger, database } = lab;
  return new Schedules({ store: new ScheduleStore(database, logger), runner, logger, now: () => nowMs });
}

/** The next process, over the same database. */
function restart(): void {
  schedules.stop();
  lab.restart();
  schedules = makeSchedules();
  schedules.start();
}

/** Lets the clock show another time, and looks at it. */
function jump(timeMs: number): void {
  nowMs = timeMs;
  schedules.tick();
}

function only(): Schedule {
  const [schedule, ...others] = schedules.list();
  assert.ok(schedule !== undefined && others.length === 0);
  return schedule;
}

/** Ends what runs. */
async function finish(): Promise<void> {
  await settle();
  a.last.complete();
  await settle();
}

describe('a schedule', () => {
  it('is answered with its next time, and survives a restart', () => {
    const schedule = schedules.create({ ...HOURLY, parameters: { x: 1 }, timezone: 'Europe/Berlin', catchUp: true });
    assert.match(schedule.id, /^[0-9a-f-]{36}$/);
    assert.deepEqual(schedule, {
      id: schedule.id,
      name: null,
      provider: 'a',
      parameters: { x: 1 },
      cron: '30 * * * *',
      timezone: 'Europe/Berlin',
      catchUp: true,
      isPaused: false,
      createdAtMs: START_MS,
      nextDueAtMs: FIRST_MS,
      lastDue: null,
    });
    assert.deepEqual(schedules.list(), [schedule]);
    restart();
    assert.deepEqual(schedules.list(), [schedule]);
  });

  it('begins a task when it is due, and not a moment before', async () => {
    const { id } = schedules.create({ ...HOURLY, parameters: { x: 7 } });
    jump(FIRST_MS - 1);
    assert.deepEqual(lab.runner.list(), []);
    assert.equal(only().lastDue, null);
    jump(FIRST_MS);
    const [task] = lab.runner.list();
    assert.ok(task);
    assert.deepEqual([task.provider, task.parameters, task.scheduleId], ['a', { x: 7 }, id]);
    const { lastDue, nextDueAtMs } = only();
    assert.deepEqual(lastDue, { dueAtMs: FIRST_MS, outcome: 'started', task: task.uid, reason: null });
    assert.equal(nextDueAtMs, FIRST_MS + HOUR_MS);
    await settle();
    assert.equal(a.last.context.isUnattended, true);
    jump(FIRST_MS + 1);
    await finish();
    jump(FIRST_MS + 2);
    assert.equal(a.runs.length, 1);
  });

  it('begins a task each time', async () => {
    schedules.create(HOURLY);
    for (let hour = 0; hour < 5; hour++) {
      jump(FIRST_MS + hour * HOUR_MS + 7);
      assert.equal(only().lastDue?.dueAtMs, FIRST_MS + hour * HOUR_MS);
      await finish();
    }
    assert.equal(a.runs.length, 5);
  });

  it('skips a time at which a task of its provider runs', async () => {
    schedules.create(HOURLY);
    lab.begin('a');
    jump(FIRST_MS);
    assert.deepEqual(only().lastDue, {
      dueAtMs: FIRST_MS,
      outcome: 'skipped',
      task: null,
      reason: 'A task of the same provider was in progress.',
    });
    await finish();
    jump(FIRST_MS + MINUTE_MS);
    assert.equal(a.runs.length, 1);
    jump(FIRST_MS + HOUR_MS);
    assert.equal(only().lastDue?.outcome, 'started');
  });

  it('of the same provider as another, due at once, lets the first one begin', () => {
    const first = schedules.create(HOURLY);
    schedules.create(HOURLY);
    const other = schedules.create({ ...HOURLY, provider: 'b' });
    jump(FIRST_MS);
    assert.deepEqual(
      schedules.list().map(({ lastDue }) => lastDue?.outcome),
      ['started', 'skipped', 'started'],
    );
    assert.deepEqual(
      lab.runner.list().map(({ scheduleId }) => scheduleId),
      [first.id, other.id],
    );
  });

  it('begins a task that is late by a minute, and misses one that is later', async () => {
    schedules.create(HOURLY);
    jump(FIRST_MS + MINUTE_MS);
    assert.equal(only().lastDue?.outcome, 'started');
    await finish();
    jump(FIRST_MS + HOUR_MS + MINUTE_MS + 1);
    assert.deepEqual(only().lastDue, {
      dueAtMs: FIRST_MS + HOUR_MS,
      outcome: 'missed',
      task: null,
      reason: 'The Loader was not running at that time, or its clock was set past it.',
    });
    assert.equal(only().nextDueAtMs, FIRST_MS + 2 * HOUR_MS);
    assert.equal(a.runs.length, 1);
  });

  it('says why its task could not begin, and goes on', () => {
    schedules.create(HOURLY);
    lab.refuseWrites(true);
    jump(FIRST_MS);
    const { lastDue, nextDueAtMs } = only();
    assert.deepEqual([lastDue?.outcome, lastDue?.task], ['failed', null]);
    assert.match(lastDue?.reason ?? '', /it is read-only/);
    assert.equal(nextDueAtMs, FIRST_MS + HOUR_MS);
    lab.refuseWrites(false);
    jump(FIRST_MS + HOUR_MS);
    assert.equal(only().lastDue?.outcome, 'started');
  });

  it('says no more than that of a fault in the Loader', (t) => {
    schedules.create(HOURLY);
    t.mock.method(lab.runner, 'create', () => {
      throw new Error('hush');
    });
    jump(FIRST_MS);
    assert.equal(only().lastDue?.outcome, 'failed');
    assert.equal(only().lastDue?.reason, 'Internal error: the log of the Loader has the details.');
    assert.ok(lab.logLines.some((line) => line.includes('hush') && line.includes('could not begin')));
  });

  it('fails at its times when its provider is gone or takes its parameters no more', () => {
    schedules.create({ ...HOURLY, parameters: { x: 1 } });
    nowMs += 1;
    schedules.create({ ...HOURLY, provider: 'b' });
    lab.providers = [new ControlledProvider('a', { parameters: Type.Object({ x: Type.Optional(Type.String()) }) })];
    restart();
    jump(FIRST_MS);
    assert.deepEqual(
      schedules.list().map(({ lastDue }) => [lastDue?.outcome, lastDue?.reason]),
      [
        ['failed', 'x: Input should be a valid string'],
        ['failed', "provider: Input should be 'a'"],
      ],
    );
  });

  it('fails at its times while the Loader stops', async () => {
    schedules.create(HOURLY);
    await lab.runner.stop();
    jump(FIRST_MS);
    assert.equal(only().lastDue?.outcome, 'failed');
  });

  it('is removed, and answered once more; its tasks go on', async () => {
    const { id } = schedules.create(HOURLY);
    jump(FIRST_MS);
    const kept = schedules.create(HOURLY);
    assert.equal(schedules.remove(id).id, id);
    assert.deepEqual(schedules.list(), [kept]);
    assert.throws(() => schedules.remove(id), { code: 'schedule_not_found' });
    assert.throws(() => schedules.remove(''), { code: 'schedule_not_found' });
    assert.equal(lab.runner.list()[0]?.status, 'in_progress');
    await finish();
    restart();
    assert.deepEqual(schedules.list(), [kept]);
    schedules.remove(kept.id);
    jump(FIRST_MS + HOUR_MS);
    assert.equal(a.runs.length, 1);
  });

  it('begins nothing while it is paused, whatever becomes of the clock, and goes on from then', async () => {
    const { id } = schedules.create({ ...HOURLY, name: 'hourly', catchUp: true });
    const paused = schedules.change(id, { isPaused: true });
    assert.deepEqual([paused.isPaused, paused.nextDueAtMs, paused.name], [true, null, 'hourly']);
    jump(FIRST_MS);
    jump(START_MS - MINUTE_MS); // Which looks for the next times anew.
    restart();
    jump(FIRST_MS + HOUR_MS);
    assert.equal(schedules.list()[0]?.nextDueAtMs, null);
    assert.deepEqual(lab.runner.list(), []);
    assert.equal(schedules.change(id, { isPaused: false }).nextDueAtMs, FIRST_MS + 2 * HOUR_MS);
    jump(FIRST_MS + 2 * HOUR_MS);
    await settle();
    assert.equal(a.runs.length, 1);
  });

  it('is changed in all but its provider, and keeps what is not named, over a restart', () => {
    const created = schedules.create({ ...HOURLY, name: 'one', parameters: { x: 1 } });
    assert.deepEqual(schedules.change(created.id, {}), created);
    const changed = schedules.change(created.id, {
      cron: '0 3 * * *',
      timezone: 'Europe/Berlin',
      parameters: { x: 2 },
    });
    const nextDueAtMs = Date.parse('2026-06-02T01:00:00Z');
    const expected = { ...created, cron: '0 3 * * *', timezone: 'Europe/Berlin', parameters: { x: 2 }, nextDueAtMs };
    assert.deepEqual(changed, expected);
    schedules.change(created.id, { name: null, catchUp: true });
    restart();
    assert.deepEqual(schedules.list(), [{ ...expected, name: null, catchUp: true }]);
  });

  it('stays as it is when a change is wrong, or can not be stored', () => {
    const created = schedules.create(HOURLY);
    const wrong = [
      { cron: '61 * * * *' },
      { timezone: '+02:00' },
      { parameters: { x: 'no' } },
      { parameters: { password: 'p' } },
    ];
    for (const change of wrong) assert.throws(() => schedules.change(created.id, change), InputError);
    lab.refuseWrites(true);
    assert.throws(() => schedules.change(created.id, { isPaused: true }), { code: 'task_store_unavailable' });
    lab.refuseWrites(false);
    assert.throws(() => schedules.change('', { isPaused: true }), { code: 'schedule_not_found' });
    assert.deepEqual(schedules.list(), [created]);
  });

  it('runs at once when it is told to, paused or not, and its times stay', async () => {
    const created = schedules.create({ ...HOURLY, parameters: { x: 3 }, isPaused: true });
    const task = schedules.run(created.id);
    assert.deepEqual([task.scheduleId, task.parameters], [created.id, { x: 3 }]);
    await settle();
    assert.throws(() => schedules.run(created.id), {
      code: 'provider_busy',
      message: new RegExp(`^Task ${task.uid} of the`),
    });
    assert.throws(() => schedules.run(''), { code: 'schedule_not_found' });
    assert.deepEqual(schedules.list(), [created]);
  });

  it('stays when it can not be removed from the disk', () => {
    const { id } = schedules.create(HOURLY);
    lab.refuseWrites(true);
    assert.throws(() => schedules.remove(id), { code: 'task_store_unavailable' });
    assert.equal(schedules.list().length, 1);
    lab.refuseWrites(false);
    schedules.remove(id);
    assert.deepEqual(schedules.list(), []);
  });
});

describe('a new schedule', () => {
  const refused: readonly (readonly [what: string, change: Partial<NewSchedule>, path: readonly string[]])[] = [
    ['a provider that there is not', { provider: 'c' }, ['provider']],
    ['parameters that its provider does not take', { parameters: { x: 'one' } }, ['parameters', 'x']],
    ['a pattern that is none', { cron: 'soon' }, ['cron']],
    ['a pattern without a time', { cron: '0 0 30 2 *' }, ['cron']],
    ['a time zone that there is not', { timezone: 'Mars/Olympus' }, ['timezone']],
  ];
  for (const [what, change, path] of refused) {
    it(`is refused with ${what}`, () => {
      assert.throws(
        () => schedules.create({ ...HOURLY, ...change }),
        (error) => {
          assert.ok(error instanceof InputError);
          assert.deepEqual(
            error.faults.map((fault) => fault.path),
            [path],
          );
          return true;
        },
      );
      assert.deepEqual(schedules.list(), []);
    });
  }

  it('is told to have no time where it has none', () => {
    assert.throws(() => schedules.create({ ...HOURLY, cron: '0 0 30 2 *' }), {
      message: 'cron: cron must have a time that is still to come',
    });
  });

  it('is refused with a secret, which is stored nowhere', () => {
    const password = 'correct-horse-battery-staple';
    assert.throws(() => schedules.create({ ...HOURLY, parameters: { password } }), {
      message: "provider: provider needs a secret, which is never kept: it can't be scheduled",
    });
    assert.deepEqual(schedules.list(), []);
    assert.deepEqual(new ScheduleStore(lab.database, lab.logger).list(), []);
    assert.ok(!lab.logLines.join('').includes(password));
  });

  it('is refused where it can not be stored', () => {
    lab.refuseWrites(true);
    assert.throws(() => schedules.create(HOURLY), { code: 'task_store_unavailable' });
    assert.deepEqual(schedules.list(), []);
  });

  it('is refused beside a thousand others', () => {
    const { id } = schedules.create(HOURLY);
    const insert = lab.database.prepare(COPY_SCHEDULE);
    for (let count = 1; count < 999; count++) insert.run(`copy-${count}`, id);
    restart();
    const last = schedules.create(HOURLY);
    assert.equal(schedules.list().length, 1_000);
    assert.throws(() => schedules.create(HOURLY), { code: 'too_many_schedules', message: /1000 schedules/ });
    schedules.remove(last.id);
    schedules.create(HOURLY);
  });
});

describe('times that passed while the Loader was down', () => {
  it('are missed, all of them, by one that does not catch up', () => {
    schedules.create(HOURLY);
    nowMs = FIRST_MS + 5 * HOUR_MS + 10 * MINUTE_MS;
    restart();
    const { lastDue, nextDueAtMs } = only();
    assert.deepEqual([lastDue?.outcome, lastDue?.dueAtMs], ['missed', FIRST_MS]);
    assert.equal(nextDueAtMs, FIRST_MS + 6 * HOUR_MS);
    assert.deepEqual(lab.runner.list(), []);
  });

  it('are made up for by one run of one that catches up', async () => {
    schedules.create({ ...HOURLY, catchUp: true });
    nowMs = FIRST_MS + 5 * HOUR_MS + 10 * MINUTE_MS;
    restart();
    const { lastDue, nextDueAtMs } = only();
    assert.deepEqual([lastDue?.outcome, lastDue?.dueAtMs], ['started', FIRST_MS]);
    assert.equal(nextDueAtMs, FIRST_MS + 6 * HOUR_MS);
    await finish();
    restart();
    schedules.tick();
    assert.equal(a.runs.length, 1);
    assert.deepEqual(only().lastDue, lastDue);
  });

  it('are made up for no more than once though the Loader dies at once', () => {
    schedules.create({ ...HOURLY, catchUp: true });
    nowMs = FIRST_MS + HOUR_MS;
    restart();
    for (let start = 0; start < 3; start++) restart();
    assert.equal(lab.store.history({ limit: 10 }).tasks.length, 1);
  });

  it('are made up for when the provider is idle', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    schedules.create({ ...HOURLY, catchUp: true });
    const task = lab.begin('a');
    nowMs = FIRST_MS + 10 * MINUTE_MS;
    schedules.tick();
    const ticks = t.mock.method(schedules, 'tick').mock;
    assert.deepEqual([only().nextDueAtMs, only().lastDue], [FIRST_MS, null]);
    t.mock.timers.tick(999);
    assert.equal(ticks.callCount(), 0);
    t.mock.timers.tick(1);
    assert.equal(ticks.callCount(), 1);
    assert.equal(only().lastDue, null);
    return (async () => {
      await finish();
      assert.equal(lab.runner.find(task.uid).status, 'complete');
      t.mock.timers.tick(1_000);
      assert.deepEqual([only().lastDue?.outcome, only().lastDue?.dueAtMs], ['started', FIRST_MS]);
      assert.equal(only().nextDueAtMs, FIRST_MS + HOUR_MS);
    })();
  });

  it('are skipped by one that catches up when they are not late', () => {
    schedules.create({ ...HOURLY, catchUp: true });
    lab.begin('a');
    jump(FIRST_MS + MINUTE_MS);
    assert.equal(only().lastDue?.outcome, 'skipped');
  });

  it('are used up before their task begins: a death in between begins none twice', () => {
    schedules.create({ ...HOURLY, catchUp: true });
    nowMs = FIRST_MS;
    const stored = new ScheduleStore(lab.database, lab.logger);
    let seen: readonly Schedule[] = [];
    lab.runner.create = () => {
      seen = stored.list();
      throw new Error('dead');
    };
    schedules.tick();
    assert.equal(seen[0]?.nextDueAtMs, FIRST_MS + HOUR_MS);
    assert.deepEqual(seen[0].lastDue, {
      dueAtMs: FIRST_MS,
      outcome: 'failed',
      task: null,
      reason: 'The Loader died at that moment.',
    });
    assert.equal(only().lastDue?.reason, 'Internal error: the log of the Loader has the details.');
  });
});

/** One of the next two times begins a task; the first may be used up. */
async function assertGoesOn(firstMs: number): Promise<void> {
  const runs = a.runs.length;
  for (const timeMs of [firstMs, firstMs + HOUR_MS]) {
    jump(timeMs);
    if (lab.runner.isBusy('a')) await finish();
  }
  assert.ok(a.runs.length > runs, `nothing began until ${new Date(nowMs).toISOString()}`);
}

describe('a clock', () => {
  for (const catchUp of [false, true]) {
    it(`that is set forward by years, and back, stalls nothing, ${catchUp ? 'with' : 'without'} catching up`, async () => {
      schedules.create({ ...HOURLY, catchUp });
      jump(FIRST_MS);
      await finish();
      const far = START_MS + 9 * 365 * DAY_MS;
      jump(far);
      assert.equal(only().lastDue?.outcome, catchUp ? 'started' : 'missed');
      if (catchUp) await finish();
      assert.ok((only().nextDueAtMs ?? 0) > far);
      jump(FIRST_MS + 10 * MINUTE_MS);
      await assertGoesOn(FIRST_MS + HOUR_MS);
    });
  }

  for (const far of ['2035-01-01T00:00:00Z', '9000-01-01T00:00:00Z']) {
    for (const isDown of [false, true]) {
      it(`that was ${far} for a moment, and is set right ${isDown ? 'at' : 'before'} the next start`, async () => {
        schedules.create(HOURLY);
        jump(Date.parse(far));
        assert.deepEqual([only().lastDue?.outcome, only().lastDue?.dueAtMs], ['missed', FIRST_MS]);
        assert.notEqual(only().nextDueAtMs, FIRST_MS + HOUR_MS);
        nowMs = FIRST_MS + 10 * MINUTE_MS;
        if (isDown) restart();
        else schedules.tick();
        assert.equal(only().nextDueAtMs, FIRST_MS + HOUR_MS);
        jump(FIRST_MS + HOUR_MS);
        await settle();
        assert.equal(a.runs.length, 1);
      });
    }
  }

  it('beyond all times lets a schedule wait for a better one', async () => {
    schedules.create(HOURLY);
    jump(Date.parse('9000-01-01T00:00:00Z'));
    assert.equal(only().nextDueAtMs, null);
    restart();
    assert.equal(only().nextDueAtMs, null);
    jump(START_MS);
    await assertGoesOn(FIRST_MS);
  });

  it('that is not set yet after a start changes nothing, and uses no time up', async () => {
    schedules.create({ ...HOURLY, catchUp: true });
    jump(FIRST_MS);
    await finish();
    const before = only();
    nowMs = 0;
    restart();
    jump(30_000);
    assert.deepEqual(only(), before);
    jump(FIRST_MS + 20 * MINUTE_MS);
    assert.deepEqual(only(), before);
    assert.equal(a.runs.length, 1);
    jump(FIRST_MS + HOUR_MS);
    assert.equal(only().lastDue?.outcome, 'started');
  });

  it('that was far ahead, is not set yet after a start, and then is, stalls nothing', async () => {
    schedules.create(HOURLY);
    const far = START_MS + 9 * 365 * DAY_MS;
    jump(far);
    jump(far + HOUR_MS);
    if (lab.runner.isBusy('a')) await finish();
    nowMs = 0;
    restart();
    jump(30_000);
    jump(START_MS);
    await assertGoesOn(FIRST_MS);
  });

  it('that was far ahead, lost its setting, and got it back, stalls nothing', async () => {
    schedules.create(HOURLY);
    jump(START_MS + 9 * 365 * DAY_MS);
    jump(0);
    jump(START_MS + MINUTE_MS);
    await assertGoesOn(FIRST_MS);
  });

  it('that is set back a little uses no time twice', async () => {
    schedules.create(HOURLY);
    jump(FIRST_MS);
    await finish();
    jump(FIRST_MS - 5 * MINUTE_MS);
    jump(FIRST_MS);
    jump(FIRST_MS + 5 * MINUTE_MS);
    await settle();
    assert.equal(a.runs.length, 1);
    jump(FIRST_MS + HOUR_MS);
    await settle();
    assert.equal(a.runs.length, 2);
  });

  it('that is right changes nothing between the times', () => {
    schedules.create(HOURLY);
    const before = only();
    const changes = () => lab.database.prepare('SELECT total_changes() AS n').get()?.['n'];
    const changesBefore = changes();
    for (let minute = 0; minute < 30; minute++) jump(START_MS + minute * MINUTE_MS);
    assert.equal(only(), before);
    assert.equal(changes(), changesBefore);
  });

  it('that was set back while the Loader was down stalls nothing', async () => {
    nowMs = START_MS + 9 * 365 * DAY_MS;
    schedules.create(HOURLY);
    nowMs = START_MS;
    restart();
    await assertGoesOn(FIRST_MS);
  });
});

describe('waiting for the next time', () => {
  it('lasts until then, and no longer than half a minute', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    restart();
    const ticks = t.mock.method(schedules, 'tick').mock;
    const { id } = schedules.create(HOURLY);
    t.mock.timers.tick(29_999);
    assert.equal(ticks.callCount(), 0);
    nowMs = FIRST_MS - 5_000;
    t.mock.timers.tick(1);
    assert.equal(ticks.callCount(), 1);
    t.mock.timers.tick(4_999);
    assert.equal(ticks.callCount(), 1);
    nowMs = FIRST_MS;
    t.mock.timers.tick(1);
    assert.equal(ticks.callCount(), 2);
    assert.equal(only().lastDue?.outcome, 'started');
    schedules.remove(id);
    t.mock.timers.tick(30_000);
    assert.equal(ticks.callCount(), 3);
    schedules.stop();
    t.mock.timers.tick(10 * 30_000);
    assert.equal(ticks.callCount(), 3);
  });

  it('is cut short by a new schedule that is due earlier', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    restart();
    schedules.create({ ...HOURLY, cron: '*/10 * * * * *' });
    nowMs += 10_000;
    t.mock.timers.tick(10_000);
    assert.equal(only().lastDue?.outcome, 'started');
  });

  it('does not begin again after the end', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    restart();
    schedules.stop();
    const ticks = t.mock.method(schedules, 'tick').mock;
    schedules.create(HOURLY);
    t.mock.timers.tick(DAY_MS);
    assert.equal(ticks.callCount(), 0);
  });
});

describe('stored schedules', () => {
  it('are as they were stored, in the order of their creation', () => {
    const store = new ScheduleStore(lab.database, lab.logger);
    const first = schedules.create({ ...HOURLY, parameters: { x: 0.5 }, catchUp: true });
    nowMs += 1;
    const second = schedules.create({ ...HOURLY, cron: '1 1 1 1 *', timezone: 'Asia/Kathmandu' });
    assert.deepEqual(store.list(), [first, second]);
    const changed: Schedule = {
      ...first,
      nextDueAtMs: null,
      lastDue: { dueAtMs: 5, outcome: 'failed', task: null, reason: 'ü' },
    };
    store.save(changed);
    assert.deepEqual(store.list(), [changed, second]);
    store.remove(first.id);
    store.remove('unknown');
    assert.deepEqual(store.list(), [second]);
  });

  it('are in the order of their creation also when that was at once', () => {
    const created = Array.from({ length: 8 }, () => schedules.create(HOURLY));
    restart();
    assert.deepEqual(schedules.list(), created);
  });

  it('that can not be read keep the others from beginning unseen', () => {
    const store = new ScheduleStore(lab.database, lab.logger);
    lab.database.close();
    const isUnavailable = { code: 'task_store_unavailable' };
    assert.throws(() => store.list(), isUnavailable);
    assert.throws(() => store.remove('x'), isUnavailable);
    assert.throws(() => makeSchedules().start(), isUnavailable);
  });

  for (const [what, change] of [
    ['a time zone that this Loader does not know', "timezone = 'Mars/Olympus'"],
    ['a pattern that this Loader does not know', "cron = 'soon'"],
  ] as const) {
    it(`of which one has ${what} begin all the same`, () => {
      const bad = schedules.create(HOURLY);
      nowMs += 1;
      const good = schedules.create({ ...HOURLY, provider: 'b' });
      lab.database.exec(`UPDATE schedules SET ${change} WHERE id = '${bad.id}'`);
      restart();
      jump(FIRST_MS);
      assert.equal(schedules.list().find(({ id }) => id === good.id)?.lastDue?.outcome, 'started');
    });
  }
});

describe('a thousand schedules that are due at once', () => {
  it('hold up the rest of the Loader for less than a second', () => {
    const { id } = schedules.create({ ...HOURLY, timezone: 'Europe/Berlin' });
    const insert = lab.database.prepare(COPY_SCHEDULE);
    for (let count = 1; count < 1_000; count++) insert.run(`copy-${count}`, id);
    restart();
    nowMs = FIRST_MS;
    // The time of the processor: other processes of the machine do not count.
    const before = process.cpuUsage();
    schedules.tick();
    const { user, system } = process.cpuUsage(before);
    assert.deepEqual([...new Set(schedules.list().map(({ lastDue }) => lastDue?.outcome))], ['started', 'skipped']);
    assert.ok(user + system < 1_000_000, `${(user + system) / 1000} ms`);
  });
});
