import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { filesWith } from '../../support/files-with.ts';
import { Device } from '../../support/device.ts';
import { noteSecrets, S3_SKIP } from '../../../lab/test-environment.ts';
import { eventually } from '../../../lab/waiting.ts';
import { TestLoader, newApiKey } from '../../support/test-loader.ts';
import type { JsonAnswer } from '../../../lab/json-answer.ts';
import { prefetchOf, type ScheduleView } from '../../../lab/task-client.ts';

const UUID = /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/;
const EVERY_SECOND = '* * * * * *';
const NOBODYS_ID = '00000000-0000-4000-8000-000000000000';
const HOUR_MS = 60 * 60 * 1000;
/** There is nothing that it would remove. */
const EVICT = { provider: 'evict', parameters: { max_bytes: 1e12 } };
const YEARLY = { ...EVICT, cron: '30 3 24 12 *' };

describe('schedules', { skip: S3_SKIP }, () => {
  let device: Device;

  before(async () => {
    const env = { API_KEY: newApiKey(), UPSTREAM_TIMEOUT_MS: '30000', STALL_TIMEOUT_MS: '30000' };
    device = await Device.start({ env });
    await device.login();
    await device.upload('model', randomBytes(50_000));
  });

  afterEach(async () => {
    device.heal();
    for (const { id } of await device.tasks.schedules()) await device.loader.delete(`/schedules/${id}`);
    for (const { uid } of Object.values(await device.tasks.list())) await device.tasks.cancel(uid);
  });

  after(() => device.stop());

  async function find(id: string): Promise<ScheduleView | undefined> {
    return (await device.tasks.schedules()).find((schedule) => schedule.id === id);
  }

  /** Waits for the outcome of a run, other than that of `before`. */
  async function nextRun(
    id: string,
    before?: ScheduleView['last_run'],
  ): Promise<NonNullable<ScheduleView['last_run']>> {
    for (let i = 0; i < 300; i++) {
      const run = (await find(id))?.last_run ?? null;
      if (run !== null && run.due_at !== before?.due_at) return run;
      await sleep(10);
    }
    throw new Error('the schedule was not run');
  }

  async function expectRefusal(body: object, code: string): Promise<JsonAnswer> {
    const before = await device.tasks.schedules();
    const answer = await device.loader.postForJson('/schedules', body);
    assert.deepEqual([answer.status, answer.body.code], [422, code], JSON.stringify(answer.body));
    assert.deepEqual(await device.tasks.schedules(), before);
    return answer;
  }

  /** Stops the Loader and changes its schedules' next times, as if it had been down for long. */
  async function sleepThrough(ids: readonly string[], byMs: number): Promise<void> {
    await device.loader.stop();
    const database = new DatabaseSync(path.join(device.stateFolder, 'tasks.db'));
    const set = database.prepare('UPDATE schedules SET next_run_at = ? WHERE id = ?');
    for (const id of ids) assert.equal(set.run(Date.now() - byMs, id).changes, 1);
    database.close();
    await device.startLoader();
  }

  it('are created, listed in their order and deleted', async () => {
    const first = await device.tasks.schedule(YEARLY);
    assert.match(first.id, UUID);
    assert.deepEqual(first, {
      ...YEARLY,
      id: first.id,
      name: null,
      timezone: 'UTC',
      catch_up: false,
      paused: false,
      created_at: first.created_at,
      next_run: first.next_run,
      last_run: null,
    });
    assert.match(first.next_run ?? '', /^\d{4}-12-24T03:30:00\.000Z$/);
    assert.ok(Math.abs(Date.parse(first.created_at) - Date.now()) < 2000);
    const prefetch = prefetchOf('model');
    const second = await device.tasks.schedule({
      provider: 'prefetch',
      parameters: prefetch,
      cron: '0 12 1 7 *',
      timezone: 'Europe/Berlin',
      catch_up: true,
    });
    assert.deepEqual([second.parameters, second.timezone, second.catch_up], [prefetch, 'Europe/Berlin', true]);
    assert.match(second.next_run ?? '', /^\d{4}-07-01T10:00:00\.000Z$/);
    const third = await device.tasks.schedule({ provider: 'verify', cron: '0 0 1 1 *' });
    assert.deepEqual(third.parameters, {});
    assert.deepEqual(await device.tasks.schedules(), [first, second, third]);
    const { status, body } = await device.loader.delete(`/schedules/${second.id}`);
    assert.deepEqual([status, body], [200, second]);
    assert.deepEqual(await device.tasks.schedules(), [first, third]);
    assert.equal((await device.loader.delete(`/schedules/${second.id}`)).body.code, 'schedule_not_found');
  });

  it('begin tasks at their times, and show the last and the next run', async () => {
    const { id, next_run: nextRunAt } = await device.tasks.schedule({ ...EVICT, cron: EVERY_SECOND });
    assert.ok(Date.parse(nextRunAt ?? '') - Date.now() <= 1000);
    let last: ScheduleView['last_run'] = null;
    const dueTimes: number[] = [];
    for (let i = 0; i < 3; i++) {
      last = await nextRun(id, last);
      const { due_at: dueAt, outcome, task: uid, reason } = last;
      assert.deepEqual([outcome, reason], ['started', null]);
      assert.equal(Date.parse(dueAt) % 1000, 0);
      dueTimes.push(Date.parse(dueAt));
      const task = await device.tasks.ended(uid ?? '');
      assert.deepEqual([task.provider, task.schedule, task.status], ['evict', id, 'complete']);
      const lateMs = Date.parse(task.created_at) - Date.parse(dueAt);
      assert.ok(lateMs >= 0 && lateMs < 500, `it began ${lateMs} ms late`);
      const next = Date.parse((await find(id))?.next_run ?? '');
      assert.ok(next > Date.parse(dueAt) && next % 1000 === 0);
    }
    assert.deepEqual(
      dueTimes,
      [0, 1000, 2000].map((ms) => Number(dueTimes[0]) + ms),
    );
    const byIt = (await device.tasks.wholeHistory()).filter(({ schedule }) => schedule === id);
    assert.ok(byIt.length >= 3 && byIt.length <= 4);
  });

  it('are paused, changed and run by hand, over restarts', async () => {
    const { id } = await device.tasks.schedule({ ...EVICT, cron: EVERY_SECOND, name: 'each second' });
    const change = async (body: object) =>
      (await (
        await device.loader.fetch(`/schedules/${id}`, {
          method: 'PATCH',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify(body),
        })
      ).json()) as ScheduleView;
    const paused = await change({ paused: true });
    assert.deepEqual([paused.name, paused.paused, paused.next_run], ['each second', true, null]);
    await device.restartLoader('SIGKILL');
    assert.deepEqual(await device.tasks.schedules(), [paused]);
    const { status, body } = await device.loader.postForJson(`/schedules/${id}/run`, {});
    assert.deepEqual([status, body['schedule'], body['provider']], [200, id, 'evict']);
    const task = await device.tasks.ended(String(body['uid']));
    const retried = await device.loader.postForJson(`/tasks/${task.uid}/retry`, {});
    assert.deepEqual([retried.status, retried.body['retry_of'], retried.body['attempt']], [200, task.uid, 2]);
    assert.equal((await device.tasks.ended(String(retried.body['uid']))).status, 'complete');
    assert.deepEqual((await change({ paused: false, name: null, cron: '0 0 1 1 *' })).last_run, paused.last_run);
    await device.login();
    await device.loader.delete(`/schedules/${id}`);
  });

  it('begin no more once they are deleted; what they began goes on', async () => {
    const gate = Promise.withResolvers<undefined>();
    device.apiProxy.fault = () => ({ kind: 'hold', until: gate.promise });
    const { id } = await device.tasks.schedule({
      provider: 'prefetch',
      parameters: prefetchOf('model'),
      cron: EVERY_SECOND,
    });
    const { task } = await nextRun(id);
    assert.equal((await device.loader.delete(`/schedules/${id}`)).status, 200);
    assert.equal((await device.tasks.details(task ?? '')).status, 'in_progress');
    gate.resolve(undefined);
    assert.equal((await device.tasks.ended(task ?? '')).status, 'complete');
    const prefetches = async () => (await device.tasks.wholeHistory('provider=prefetch&limit=200')).length;
    const before = await prefetches();
    // Another schedule of the same times shows that one has come since.
    const other = await device.tasks.schedule({ ...EVICT, cron: EVERY_SECOND });
    await nextRun(other.id, await nextRun(other.id));
    assert.equal(await prefetches(), before);
  });

  it('are skipped, and say so, while a task of their provider runs', async () => {
    const gate = Promise.withResolvers<undefined>();
    device.apiProxy.fault = () => ({ kind: 'hold', until: gate.promise });
    const uid = await device.tasks.beginPrefetch('model');
    const { id } = await device.tasks.schedule({
      provider: 'prefetch',
      parameters: prefetchOf('model'),
      cron: EVERY_SECOND,
    });
    const before = (await device.tasks.wholeHistory()).length;
    let last = await nextRun(id);
    last = await nextRun(id, last);
    assert.deepEqual(
      [last.outcome, last.task, last.reason],
      ['skipped', null, 'A task of the same provider was in progress.'],
    );
    assert.equal((await device.tasks.wholeHistory()).length, before);
    assert.ok(Date.parse((await find(id))?.next_run ?? '') > Date.parse(last.due_at));
    gate.resolve(undefined);
    await device.tasks.ended(uid);
    while (last.outcome === 'skipped') last = await nextRun(id, last);
    assert.equal(last.outcome, 'started');
    assert.equal((await device.tasks.ended(last.task ?? '')).status, 'complete');
  });

  it('of one time and provider begin one task', async () => {
    const gate = Promise.withResolvers<undefined>();
    device.apiProxy.fault = () => ({ kind: 'hold', until: gate.promise });
    const body = { provider: 'prefetch', parameters: prefetchOf('model'), cron: EVERY_SECOND };
    const made = await Promise.all([device.tasks.schedule(body), device.tasks.schedule(body)]);
    const runs = await Promise.all(made.map(({ id }) => nextRun(id)));
    assert.deepEqual(runs.map(({ outcome }) => outcome).sort(), ['skipped', 'started']);
    gate.resolve(undefined);
  });

  it('survive a restart and kill -9, with their last runs', async () => {
    const yearly = await device.tasks.schedule({ ...YEARLY, catch_up: true, timezone: 'Asia/Tokyo' });
    const { id } = await device.tasks.schedule({ ...EVICT, cron: EVERY_SECOND });
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const before = await nextRun(id);
      await device.restartLoader(signal);
      const [first, second, ...others] = await device.tasks.schedules();
      assert.deepEqual([first, second?.id, others], [yearly, id, []]);
      assert.ok(Date.parse(second?.last_run?.due_at ?? '') >= Date.parse(before.due_at));
      let next = await nextRun(id, second?.last_run);
      // On a slow machine, the evict of a second may run into the next one.
      while (next.outcome === 'skipped') next = await nextRun(id, next);
      assert.equal(next.outcome, 'started');
      await device.tasks.ended(next.task ?? '');
    }
    await device.loader.delete(`/schedules/${id}`);
    await device.restartLoader('SIGKILL');
    assert.deepEqual(await device.tasks.schedules(), [yearly], 'a deleted one came back');
  });

  it('make up, once, for times that passed while the Loader was down, where they are to', async () => {
    const catching = await device.tasks.schedule({ ...YEARLY, catch_up: true });
    const missing = await device.tasks.schedule({ provider: 'verify', cron: YEARLY.cron });
    await sleepThrough([catching.id, missing.id], HOUR_MS);
    const [caught, missed] = await device.tasks.schedules();
    const lateMs = Date.now() - Date.parse(caught?.last_run?.due_at ?? '');
    assert.ok(lateMs > HOUR_MS && lateMs < HOUR_MS + 20_000);
    assert.deepEqual([caught?.last_run?.outcome, caught?.next_run], ['started', catching.next_run]);
    const task = await device.tasks.ended(caught?.last_run?.task ?? '');
    assert.deepEqual([task.status, task.schedule], ['complete', catching.id]);
    const { outcome, task: uid, reason } = missed?.last_run ?? {};
    assert.deepEqual([outcome, uid], ['missed', null]);
    assert.match(reason ?? '', /The Loader was not running at that time/);
    assert.equal(missed?.next_run, missing.next_run);

    await device.restartLoader();
    assert.deepEqual(await device.tasks.schedules(), [caught, missed], 'it was made up for twice');
    const ofThem = (await device.tasks.wholeHistory()).filter(({ schedule }) =>
      [catching.id, missing.id].includes(schedule ?? ''),
    );
    assert.deepEqual(
      ofThem.map((made) => made.uid),
      [task.uid],
    );
    await device.login();
  });

  it('make up for a time when their provider is no longer busy', async () => {
    device.apiProxy.fault = () => ({ kind: 'never-answer' });
    const interrupted = await device.tasks.beginPrefetch('model');
    const { id } = await device.tasks.schedule({
      provider: 'prefetch',
      parameters: prefetchOf('model'),
      cron: YEARLY.cron,
      catch_up: true,
    });
    await sleepThrough([id], HOUR_MS);
    device.heal();
    await device.login(); // The interrupted prefetch was begun anew, and waits for it.
    const { outcome, task } = await nextRun(id);
    assert.equal(outcome, 'started');
    await device.tasks.ended(task ?? '');
    const [made, again, first] = (await device.tasks.history('?provider=prefetch&limit=3')).tasks;
    assert.deepEqual([made?.uid, made?.status, made?.schedule], [task, 'complete', id]);
    assert.deepEqual([again?.retry_of, again?.status, first?.uid], [interrupted, 'complete', interrupted]);
    assert.ok((made?.created_at ?? '') >= (again?.finished_at ?? 'never'), 'it began beside the other one');
  });

  it('begin what came due a moment ago, though nothing is made up for', async () => {
    const { id, next_run: nextRunAt } = await device.tasks.schedule(YEARLY);
    await sleepThrough([id], 20_000);
    const schedule = await find(id);
    assert.deepEqual([schedule?.last_run?.outcome, schedule?.next_run], ['started', nextRunAt]);
    await device.login();
  });

  it('make up for a prefetch when somebody has logged in', async () => {
    const { id } = await device.tasks.schedule({
      provider: 'prefetch',
      parameters: prefetchOf('model'),
      cron: YEARLY.cron,
      catch_up: true,
    });
    await device.clearCache();
    await sleepThrough([id], 30 * 24 * HOUR_MS);
    const uid = (await find(id))?.last_run?.task ?? '';
    await eventually(async () => (await device.tasks.lines(uid)).some(({ text }) => text.includes('POST /login')));
    const loginAt = new Date().toISOString();
    await device.login();
    const { status, finished_at: finishedAt } = await device.tasks.ended(uid);
    assert.equal(status, 'complete');
    assert.ok((finishedAt ?? '') >= loginAt, 'it did not wait for the login');
  });

  it('are not for the unlock, whose password would have to be kept', async () => {
    const password = `secret-${randomBytes(12).toString('hex')}`;
    noteSecrets(password);
    const parameters = { email: 'operator@example.com', password };
    const { body } = await expectRefusal({ provider: 'unlock', parameters, cron: '0 3 * * *' }, 'validation_failed');
    const [fault, ...others] = body.detail as { loc: string[]; msg: string }[];
    assert.deepEqual([fault?.loc, others], [['body', 'provider'], []]);
    assert.match(fault?.msg ?? '', /needs a secret, which is never kept/);
    await expectRefusal(
      { provider: 'unlock', parameters: { email: 'a@example.com' }, cron: '0 3 * * *' },
      'validation_failed',
    );
    assert.deepEqual(await filesWith(password, device.stateFolder), []);
    assert.ok(!device.loader.log().includes(password));
  });

  const FAULTS: readonly (readonly [what: string, body: object, loc: readonly string[]])[] = [
    ['no provider', { cron: '* * * * *' }, ['body', 'provider']],
    ['no times', { provider: 'verify' }, ['body', 'cron']],
    ['an unknown provider', { ...YEARLY, provider: 'nonsense' }, ['body', 'provider']],
    ['a wrong parameter', { ...YEARLY, parameters: { max_bytes: 'all' } }, ['body', 'parameters', 'max_bytes']],
    ['parameters that are none of the provider', { ...YEARLY, parameters: {} }, ['body', 'parameters']],
    ['parameters that are no object', { ...YEARLY, parameters: 5 }, ['body', 'parameters']],
    ['no cron pattern', { ...YEARLY, cron: 'every day' }, ['body', 'cron']],
    ['a minute that there is not', { ...YEARLY, cron: '60 * * * *' }, ['body', 'cron']],
    ['an empty pattern', { ...YEARLY, cron: '' }, ['body', 'cron']],
    ['a day that never comes', { ...YEARLY, cron: '0 0 31 2 *' }, ['body', 'cron']],
    ['a time that has passed', { ...YEARLY, cron: '2020-01-01T00:00:00' }, ['body', 'cron']],
    ['a pattern of 257 characters', { ...YEARLY, cron: '* '.repeat(128) + '*' }, ['body', 'cron']],
    ['a zone that there is not', { ...YEARLY, timezone: 'Mars/Base' }, ['body', 'timezone']],
    ['an empty zone', { ...YEARLY, timezone: '' }, ['body', 'timezone']],
    ['catch_up that is no boolean', { ...YEARLY, catch_up: 'yes' }, ['body', 'catch_up']],
    ['a field too many', { ...YEARLY, enabled: true }, ['body', 'enabled']],
  ];
  for (const [what, body, loc] of FAULTS) {
    it(`are refused with ${what}, and where it is`, async () => {
      const { detail } = (await expectRefusal(body, 'validation_failed')).body;
      assert.deepEqual(
        (detail as { loc: string[] }[]).map((fault) => fault.loc),
        [loc],
      );
    });
  }

  it('are at most 1,000', async () => {
    const loader = await TestLoader.start({ env: { API_KEY: newApiKey() } });
    try {
      const create = async () => {
        const answer = await loader.post('/schedules', YEARLY);
        await answer.text();
        return answer.status;
      };
      for (let made = 0; made < 1000; made += 50) {
        const statuses = await Promise.all(Array.from({ length: 50 }, create));
        assert.ok(statuses.every((status) => status === 200));
      }
      const { status, body } = await loader.postForJson('/schedules', YEARLY);
      assert.deepEqual([status, body.code], [409, 'too_many_schedules']);
    } finally {
      await loader.stop('SIGKILL');
    }
  });

  it('that there are not are answered with 404', async () => {
    for (const id of [NOBODYS_ID, 'x', '%00']) {
      const { status, body } = await device.loader.delete(`/schedules/${id}`);
      assert.deepEqual([status, body.code], [404, 'schedule_not_found']);
    }
  });

  it('keep the process from ending at no time', async () => {
    await device.tasks.schedule({ ...EVICT, cron: EVERY_SECOND });
    const startedAt = performance.now();
    assert.equal(await device.loader.stop('SIGTERM'), 0);
    assert.ok(performance.now() - startedAt < 1500);
    await device.startLoader();
    await eventually(async () => (await device.tasks.schedules()).length === 1);
  });
});
