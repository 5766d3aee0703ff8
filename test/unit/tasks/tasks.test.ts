import assert from 'node:assert/strict';
import { copyFile, mkdir, mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { openTaskDatabase } from '../../../src/tasks/task-database.ts';
import { TaskStore } from '../../../src/tasks/task-store.ts';
import { Tasks } from '../../../src/tasks/tasks.ts';
import { addEndedTask, addSchedules, ControlledProvider, DAY_MS, makeLogger } from '../../support/task-lab.ts';
import { eventually, settle } from '../../../lab/waiting.ts';

const RETRY_MS = 10_000;
const UNAVAILABLE = { code: 'task_store_unavailable' };

let folder = '';
let a = new ControlledProvider('a', { isRepeatable: true });
let { logger, logLines } = makeLogger();
let services: Tasks[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-service-'));
  a = new ControlledProvider('a', { isRepeatable: true });
  ({ logger, logLines } = makeLogger());
  services = [];
});

afterEach(async () => {
  await stopAll();
  await rm(folder, { recursive: true, force: true });
});

function makeService(stateDir = folder): Tasks {
  const provider = { providers: [a.provider], logger };
  const service = new Tasks({ ...provider, stateDir, historyCount: 100, historyAgeMs: DAY_MS });
  services.push(service);
  return service;
}

function errors(): string[] {
  return logLines.filter((line) => line.includes('"level":"error"'));
}

/** Changes the database while nobody has it open. */
function execute(sql: string): void {
  const database = new DatabaseSync(path.join(folder, 'tasks.db'));
  database.exec(sql);
  database.close();
}

async function stopAll(): Promise<void> {
  for (const service of services) {
    const stopped = service.stop();
    for (const { fail } of a.runs) fail(new Error('aborted'));
    await stopped;
    service.close();
  }
}

/** Runs `work` with timers that the test turns, also where modules have imported them by name. */
async function withMockedTimers(work: () => Promise<void>): Promise<void> {
  mock.timers.enable({ apis: ['setTimeout'] });
  syncBuiltinESMExports();
  try {
    await work();
    await stopAll(); // Mocked timers must not outlive the mock.
  } finally {
    mock.timers.reset();
    syncBuiltinESMExports();
  }
}

/** Waits without a timer, since the tests have replaced them. */
async function soon(isSo: () => boolean): Promise<void> {
  await eventually(isSo, { pollMs: 0 });
}

function isOpen(service: Tasks): boolean {
  return failureOf(service) === undefined;
}

/** Why there are no tasks. Each attempt to open the database that fails makes another error. */
function failureOf(service: Tasks): unknown {
  try {
    service.runner.list();
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Waits until the next attempt to open the database has failed. */
async function nextFailure(service: Tasks): Promise<void> {
  const earlier = failureOf(service);
  mock.timers.tick(RETRY_MS);
  await soon(() => failureOf(service) !== earlier);
  assert.notEqual(failureOf(service), undefined);
}

describe('the service of the tasks', () => {
  it('has nothing to offer before it is started, and says so', () => {
    const service = makeService();
    assert.throws(() => service.runner, UNAVAILABLE);
    assert.throws(() => service.schedules, { ...UNAVAILABLE, message: /not open yet/ });
  });

  it('keeps tasks and schedules from one start to the next', async () => {
    const first = makeService();
    await first.start();
    const { uid } = first.runner.create('a', {}) ?? assert.fail();
    const schedule = { provider: 'a', parameters: {}, cron: '0 0 1 1 *', timezone: 'UTC', catchUp: false };
    const { id } = first.schedules.create(schedule);
    await settle();
    const stopped = first.stop();
    a.last.fail(new Error('aborted'));
    await stopped;
    assert.equal(first.runner.find(uid).status, 'interrupted');
    first.close();
    assert.throws(() => first.runner, UNAVAILABLE);
    assert.deepEqual(await readdir(folder), ['tasks.db']);

    const second = makeService();
    await second.start();
    assert.deepEqual(
      second.schedules.list().map((kept) => kept.id),
      [id],
    );
    assert.equal(second.runner.find(uid).status, 'interrupted');
    const [retry] = second.runner.list();
    assert.equal(retry?.retryOf, uid);
    assert.deepEqual(errors(), []);
  });

  it('lets nothing begin after it was stopped', async () => {
    const service = makeService();
    await service.start();
    await service.stop();
    assert.throws(() => service.runner.create('a', {}), { code: 'shutting_down' });
    await service.stop();
    service.close();
    service.close();
  });

  it('opens with a schedule that it can not understand, and begins what is to begin anew once', async () => {
    const first = makeService();
    await first.start();
    first.runner.create('a', {});
    first.schedules.create({ provider: 'a', parameters: {}, cron: '0 0 1 1 *', timezone: 'UTC', catchUp: false });
    await settle();
    const stopped = first.stop();
    a.last.fail(new Error('aborted'));
    await stopped;
    first.close();
    execute("UPDATE schedules SET timezone = 'Mars/Olympus'");
    const second = makeService();
    await second.start();
    assert.equal(isOpen(second), true);
    await settle();
    assert.equal(a.runs.length, 2);
  });

  it('is opened once', async () => {
    const service = makeService();
    await withMockedTimers(async () => {
      await service.start();
      const { runner } = service;
      mock.timers.tick(RETRY_MS);
      await service.stop(); // It waits for an attempt that has begun, and this one would fail: the database is in use.
      assert.equal(service.runner, runner);
      assert.deepEqual(logLines, []);
    });
  });

  it('looks at no schedule after it was stopped', async () => {
    const service = makeService();
    await withMockedTimers(async () => {
      await service.start();
      const schedule = { provider: 'a', parameters: {}, cron: '* * * * * *', timezone: 'UTC', catchUp: false };
      service.schedules.create(schedule);
      const ticks = mock.method(service.schedules, 'tick').mock;
      mock.timers.tick(30_000);
      assert.ok(ticks.callCount() > 0);
      const before = ticks.callCount();
      await settle();
      const stopped = service.stop();
      for (const { fail } of a.runs) fail(new Error('aborted'));
      await stopped;
      mock.timers.tick(60_000);
      assert.equal(ticks.callCount(), before);
    });
  });

  it('writes the ends that were not written when it is closed', async () => {
    const service = makeService();
    await service.start();
    const { uid } = service.runner.create('a', {}) ?? assert.fail();
    await settle();
    // Another process would do: it holds the disk for a moment.
    const exec = mock.method(DatabaseSync.prototype, 'exec', () => {
      throw Object.assign(new Error('full'), { errcode: 13 });
    });
    a.last.complete('done');
    await settle();
    exec.mock.restore();
    assert.equal(errors().length, 1);
    service.close();
    const database = new DatabaseSync(path.join(folder, 'tasks.db'));
    assert.deepEqual({ ...database.prepare('SELECT uid, status FROM tasks').get() }, { uid, status: 'complete' });
    database.close();
  });

  it('closes the database though the ends can not be written', async () => {
    const service = makeService();
    await service.start();
    service.runner.create('a', {});
    await settle();
    const exec = mock.method(DatabaseSync.prototype, 'exec', () => {
      throw Object.assign(new Error('full'), { errcode: 13 });
    });
    a.last.complete('done');
    await settle();
    service.close();
    exec.mock.restore();
    assert.ok(errors().some((line) => line.includes('The ends of some tasks could not be written')));
    const next = makeService();
    await next.start();
    assert.equal(isOpen(next), true);
  });
});

describe('the service of the tasks without a database', () => {
  it('says why, and tries again until it has one', async () => {
    const stateDir = path.join(folder, 'state');
    await writeFile(stateDir, 'a file');
    const service = makeService(stateDir);
    await withMockedTimers(async () => {
      await service.start();
      const reason = /it can not be opened: check that the user of the Loader may write there/;
      assert.throws(() => service.runner, { ...UNAVAILABLE, message: reason });
      assert.equal(errors().length, 1);
      assert.match(errors()[0] ?? '', /Tasks and schedules do not work: .*it can not be opened: check that the user/);
      for (let attempt = 0; attempt < 3; attempt++) await nextFailure(service);
      assert.equal(errors().length, 1); // Not each time.
      await rm(stateDir);
      mock.timers.tick(RETRY_MS - 1);
      // An attempt that began a millisecond early would have opened it by the time that this one has.
      (await openTaskDatabase(path.join(folder, 'other'), logger)).close();
      assert.equal(isOpen(service), false);
      mock.timers.tick(1);
      await soon(() => isOpen(service));
      assert.notEqual(service.runner.create('a', {}), undefined);
    });
  });

  it('says so anew when the reason is another', async () => {
    const stateDir = path.join(folder, 'state');
    await writeFile(stateDir, 'a file');
    const service = makeService(stateDir);
    await withMockedTimers(async () => {
      await service.start();
      await rm(stateDir);
      await mkdir(stateDir);
      const other = new DatabaseSync(path.join(folder, 'other.db'));
      other.exec('PRAGMA user_version = 99');
      other.close();
      await copyFile(path.join(folder, 'other.db'), path.join(stateDir, 'tasks.db'));
      mock.timers.tick(RETRY_MS);
      await soon(() => errors().length === 2);
      assert.throws(() => service.schedules, { ...UNAVAILABLE, message: /A newer Loader made the database/ });
    });
  });

  it('leaves nothing running where it fails after it has begun something', async () => {
    const b = new ControlledProvider('b', { isRepeatable: true });
    const options = { stateDir: folder, logger, historyCount: 100, historyAgeMs: DAY_MS };
    const first = new Tasks({ ...options, providers: [a.provider, b.provider] });
    await first.start();
    for (const name of ['a', 'b']) first.runner.create(name, {});
    await settle();
    const stopped = first.stop();
    for (const { last } of [a, b]) last.fail(new Error('aborted'));
    await stopped;
    first.close();
    // The disk is full from the second repetition on.
    execute(
      `CREATE TRIGGER full BEFORE INSERT ON tasks WHEN NEW.provider = 'b' BEGIN SELECT RAISE(ABORT, 'full'); END`,
    );
    const second = new Tasks({ ...options, providers: [a.provider, b.provider] });
    services.push(second);
    await withMockedTimers(async () => {
      const started = second.start();
      await soon(() => a.runs.length === 2);
      assert.equal(a.last.context.signal.aborted, true);
      a.last.fail(new Error('aborted'));
      await started;
      assert.equal(isOpen(second), false);
      execute('DROP TRIGGER full');
      mock.timers.tick(RETRY_MS);
      await soon(() => isOpen(second));
      await settle();
      assert.deepEqual([a.runs.length, b.runs.length], [3, 2]);
      assert.deepEqual(
        second.runner.list().map(({ provider, attempt }) => [provider, attempt]),
        [
          ['b', 1],
          ['a', 1],
        ],
      );
      b.last.fail(new Error('aborted'));
    });
  });

  it('can be stopped at once', async () => {
    const stateDir = path.join(folder, 'state');
    await writeFile(stateDir, 'a file');
    const service = makeService(stateDir);
    await service.start();
    const start = performance.now();
    await service.stop();
    assert.ok(performance.now() - start < 1_000);
    service.close();
    await rm(stateDir);
    assert.throws(() => service.runner, UNAVAILABLE);
  });

  it('that is another Loader’s waits until that one has ended', async () => {
    const first = makeService();
    await first.start();
    const second = makeService();
    await withMockedTimers(async () => {
      await second.start();
      assert.throws(() => second.runner, { ...UNAVAILABLE, message: /another Loader uses it/ });
      const { uid } = first.runner.create('a', {}) ?? assert.fail();
      await settle();
      a.last.complete();
      await settle();
      await first.stop();
      first.close();
      mock.timers.tick(RETRY_MS);
      await soon(() => isOpen(second));
      assert.equal(second.runner.find(uid).status, 'complete');
    });
  });

  it('interrupts what began in the moment in which it was stopped', async () => {
    const first = makeService();
    await first.start();
    first.runner.create('a', {});
    await settle();
    const stopped = first.stop();
    a.last.fail(new Error('aborted'));
    await stopped;
    const second = makeService();
    await withMockedTimers(async () => {
      await second.start(); // The first one has the database still.
      first.close();
      mock.timers.tick(RETRY_MS);
      const runs = a.runs.length;
      for (let turn = 0; turn < 20; turn++) await Promise.resolve(); // It is just opening the database.
      const secondStopped = second.stop();
      await soon(() => a.runs.length > runs);
      assert.equal(a.last.context.signal.aborted, true);
      a.last.fail(new Error('aborted'));
      await secondStopped;
      assert.deepEqual(
        second.runner.history({ limit: 10 }).tasks.map(({ status }) => status),
        ['interrupted', 'interrupted'],
      );
    });
  });
});

describe('damage of the database that is found in use', () => {
  it('has it mended at once: the file is set aside, and tasks begin anew', async () => {
    const service = makeService();
    // More than SQLite keeps in memory, so that it reads the damage.
    const database = await openTaskDatabase(folder, logger);
    addSchedules(database, 10);
    const store = new TaskStore({ database, logger, historyCount: 10_000, historyAgeMs: DAY_MS });
    const parameters = { x: 'x'.repeat(40_000) };
    for (let i = 0; i < 150; i++) addEndedTask(store, `t${i}`, { parameters });
    database.close();
    await service.start();
    const { uid } = service.runner.create('a', {}) ?? assert.fail();
    await settle();
    const file = path.join(folder, 'tasks.db');
    await using handle = await open(file, 'r+');
    const { size } = await handle.stat();
    await handle.write(Buffer.alloc(size - 2 * 4096, 7), 0, size - 2 * 4096, 2 * 4096);
    assert.throws(() => service.runner.history({ limit: 1_000 }), UNAVAILABLE);
    await soon(() => a.last.context.signal.aborted);
    assert.throws(() => service.runner, { ...UNAVAILABLE, message: /is being mended/ });
    a.last.fail(new Error('aborted'));
    await soon(() => isOpen(service));
    assert.throws(() => service.runner.find(uid), { code: 'task_not_found' });
    assert.equal(service.runner.create('a', {})?.status, 'in_progress');
    assert.equal((await readdir(folder)).filter((name) => /damaged-.*Z$/.test(name)).length, 1);
    assert.match(errors().join(), /it is opened anew, and running tasks are interrupted.*set aside in STATE_DIR/s);
  });
});
