import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Device } from '../../support/device.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';
import { TestLoader, newApiKey } from '../../support/test-loader.ts';
import { TaskClient, type TaskView } from '../../../lab/task-client.ts';

const NOBODY = 65_534;
const NOBODYS_UID = '00000000-0000-4000-8000-000000000000';
const EVICT = { max_bytes: 1e12 };
const YEARLY = { provider: 'evict', parameters: EVICT, cron: '0 3 24 12 *' };
/** Well above the 10 s after which a database is tried again. */
const COMES_BACK_MS = 14_000;
const API_KEY = newApiKey();
const ROOT_SKIP =
  process.getuid?.() === 0 ? false : 'it needs root, to mount small file systems and to change its user';

/** A Loader for what needs nothing upstream, in a folder of its own. */
class Place {
  readonly folder: string;
  loader!: TestLoader;
  readonly #mounts: string[] = [];

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async create(): Promise<Place> {
    const place = new Place(await mkdtemp(path.join(tmpdir(), 'loader-tasks-')));
    await chmod(place.folder, 0o755);
    return place;
  }

  get state(): string {
    return path.join(this.folder, 'state');
  }

  get database(): string {
    return path.join(this.state, 'tasks.db');
  }

  get tasks(): TaskClient {
    return new TaskClient(this.loader);
  }

  async start(uid?: number, more: Readonly<Record<string, string>> = {}): Promise<void> {
    const env = { API_KEY, STATE_DIR: this.state, MODEL_CACHE_DIR: path.join(this.folder, 'models'), ...more };
    this.loader = await TestLoader.start({ env, ...(uid === undefined ? {} : { uid }) });
  }

  async restart(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.loader.stop(signal);
    await this.start();
  }

  /** Makes the state folder a small file system. */
  async mountState(size: string): Promise<void> {
    await mkdir(this.state, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', this.state]);
    this.#mounts.push(this.state);
  }

  /** Takes all the room that is left in the state folder; answers what gives it back. */
  async fillState(): Promise<() => Promise<void>> {
    const file = path.join(this.state, 'filler');
    const handle = await open(file, 'w');
    for (const size of [65_536, 4096]) {
      try {
        for (;;) await handle.appendFile(Buffer.alloc(size));
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      }
    }
    await handle.close();
    return async () => rm(file);
  }

  async files(): Promise<string[]> {
    return (await readdir(this.state)).sort();
  }

  async remove(): Promise<void> {
    await this.loader.stop('SIGKILL');
    for (const mount of this.#mounts) execFileSync('umount', ['-l', mount]);
    await rm(this.folder, { recursive: true, force: true });
  }

  /** The routes of tasks and schedules say why they can't; the rest serves. */
  async assertUnavailable(reason: RegExp): Promise<void> {
    const answers = [
      await this.tasks.post('evict', EVICT),
      await this.loader.postForJson('/schedules', YEARLY),
      ...(await Promise.all(
        [
          '/tasks',
          '/tasks/history',
          '/schedules',
          ...['', '/logs', '/events'].map((end) => `/tasks/${NOBODYS_UID}${end}`),
        ].map((route) => this.loader.get(route)),
      )),
      await this.loader.delete(`/tasks/${NOBODYS_UID}`),
      await this.loader.delete(`/schedules/${NOBODYS_UID}`),
    ];
    for (const { status, body } of answers) {
      assert.deepEqual([status, body.code], [503, 'task_store_unavailable']);
      assert.match(String(body.detail), reason);
    }
    const health = await fetch(`${this.loader.url}/health`);
    assert.equal(health.status, 200);
    assert.deepEqual((await this.loader.get('/unlock/status')).body['state'], 'idle');
    // Without a key there is not even that.
    assert.equal((await fetch(`${this.loader.url}/tasks`)).status, 401);
  }

  async assertWorks(): Promise<TaskView> {
    const task = await this.tasks.run('evict', EVICT);
    assert.equal(task.status, 'complete');
    assert.deepEqual((await this.tasks.history('?limit=1')).tasks, [task]);
    const { id } = await this.tasks.schedule(YEARLY);
    assert.equal((await this.loader.delete(`/schedules/${id}`)).status, 200);
    return task;
  }

  async comesBack(): Promise<void> {
    await eventually(async () => (await this.loader.get('/tasks')).status === 200, { timeoutMs: COMES_BACK_MS });
  }
}

// Side by side: most of the time is that in which a database is tried again.
describe('the store of the tasks', { concurrency: 4 }, () => {
  describe("a tasks' database that is damaged", { concurrency: 1 }, () => {
    let place: Place;

    beforeEach(async () => {
      place = await Place.create();
      await place.start();
      // More than a page or two.
      for (let i = 0; i < 3; i++) await place.assertWorks();
      await place.tasks.schedule(YEARLY);
      await place.loader.stop();
    });

    afterEach(() => place.remove());

    async function expectSetAside(): Promise<void> {
      const bytes = await readFile(place.database);
      await place.start();
      const files = await place.files();
      const aside = files.filter((name) => name.startsWith('tasks.db.damaged-') && !/-(wal|shm)$/.test(name));
      assert.equal(aside.length, 1, files.join(', '));
      assert.ok(bytes.equals(await readFile(path.join(place.state, aside[0] ?? ''))), 'its bytes were changed');
      const [line, ...others] = place.loader
        .log()
        .split('\n')
        .filter((text) => text.includes('is damaged: it was set aside'));
      assert.ok(line !== undefined && others.length === 0);
      const { level, file } = JSON.parse(line) as { level: string; file: string };
      assert.deepEqual([level, file], ['error', aside[0]]);
      assert.deepEqual(await place.tasks.wholeHistory(), []);
      assert.deepEqual(await place.tasks.schedules(), []);
      const task = await place.assertWorks();
      await place.restart();
      assert.deepEqual(await place.tasks.wholeHistory(), [task]);
      assert.deepEqual((await place.files()).filter((name) => name.startsWith('tasks.db.damaged-')).length, 1);
    }

    it('because it is no database at all is set aside, and tasks begin anew', async () => {
      await writeFile(place.database, randomBytes(50_000));
      await expectSetAside();
    });

    it('because its header is is set aside', async () => {
      await using file = await open(place.database, 'r+');
      await file.write(Buffer.from('SQLite formaX'), 0, 13, 0);
      await expectSetAside();
    });

    it('because pages in its middle are is set aside', async () => {
      const { size } = await stat(place.database);
      await using file = await open(place.database, 'r+');
      await file.write(randomBytes(size - 4096 * 2), 0, size - 4096 * 2, 4096);
      await expectSetAside();
    });

    it('because it was cut short is set aside', async () => {
      const { size } = await stat(place.database);
      await truncate(place.database, Math.floor(size / 2));
      await expectSetAside();
    });

    it('because it has a schema of another program is set aside as it is', async () => {
      await rm(place.database);
      const foreign = new DatabaseSync(place.database);
      foreign.exec("CREATE TABLE tasks (something TEXT); INSERT INTO tasks VALUES ('valuable')");
      foreign.close();
      await place.start();
      await place.assertWorks();
      const aside = (await place.files()).find((name) => name.startsWith('tasks.db.damaged-')) ?? '';
      const database = new DatabaseSync(path.join(place.state, aside));
      assert.equal(database.prepare('SELECT something FROM tasks').get()?.['something'], 'valuable');
      database.close();
    });

    it('after kill -9 is set aside with all that its write-ahead log held', async () => {
      await place.start();
      const { uid } = await place.assertWorks();
      await place.loader.stop('SIGKILL');
      assert.ok(!(await readFile(place.database)).includes(uid));
      await writeFile(place.database, randomBytes(50_000));
      await place.start();
      const aside = (await place.files()).filter((name) => name.startsWith('tasks.db.damaged-'));
      const contents = await Promise.all(aside.map((name) => readFile(path.join(place.state, name))));
      assert.ok(
        contents.some((bytes) => bytes.includes(uid)),
        'it was lost',
      );
      assert.deepEqual(await place.tasks.wholeHistory(), []);
      await place.assertWorks();
    });
  });

  describe("a tasks' database that is not damaged", { concurrency: 1 }, () => {
    let place: Place;

    beforeEach(async () => {
      place = await Place.create();
    });

    afterEach(() => place.remove());

    it('is made anew where its file is empty', async () => {
      await mkdir(place.state);
      await writeFile(place.database, '');
      await place.start();
      await place.assertWorks();
      assert.deepEqual(
        (await place.files()).filter((name) => name.includes('damaged')),
        [],
      );
    });

    it('but of a newer Loader is left as it is, and said to be', async () => {
      await place.start();
      await place.assertWorks();
      await place.loader.stop();
      const database = new DatabaseSync(place.database);
      database.exec('ALTER TABLE tasks ADD COLUMN more TEXT; PRAGMA user_version = 99');
      database.close();
      const bytes = await readFile(place.database);
      await place.start();
      await place.assertUnavailable(/A newer Loader made the database/);
      await place.loader.stop();
      assert.ok(bytes.equals(await readFile(place.database)), 'its bytes were changed');
      assert.deepEqual(await place.files(), ['state.lock', 'tasks.db']);
    });

    it('is whole after kill -9 within a flood of changes', async () => {
      for (let round = 0; round < 3; round++) {
        await place.start();
        const flood = Array.from({ length: 20 }, () => place.tasks.post('evict', EVICT).catch(() => undefined));
        await Promise.race(flood);
        await sleep(round * 5);
        await place.loader.stop('SIGKILL');
        await Promise.all(flood);
      }
      await place.start();
      await place.assertWorks();
      assert.deepEqual(
        (await place.files()).filter((name) => name.includes('damaged')),
        [],
      );
      assert.equal(place.loader.logLines('A task failed').length, 0);
    });
  });

  describe('a STATE_DIR', { concurrency: 8 }, () => {
    const places: Place[] = [];

    after(async () => {
      for (const place of places) await place.remove();
    });

    async function newPlace(): Promise<Place> {
      const place = await Place.create();
      places.push(place);
      return place;
    }

    it('that is a file makes the tasks unavailable, until it is a folder', async () => {
      const place = await newPlace();
      await writeFile(place.state, 'no folder');
      await place.start();
      await place.assertUnavailable(/can't be used: (EEXIST|ENOTDIR|it can not be opened)/);
      assert.equal(place.loader.logLines('Tasks and schedules do not work: ').length, 1);
      await rm(place.state);
      await place.comesBack();
      const task = await place.assertWorks();
      await place.restart();
      assert.deepEqual(await place.tasks.wholeHistory(), [task]);
    });

    it('that the Loader may not write makes the tasks unavailable, until it may', { skip: ROOT_SKIP }, async () => {
      const place = await newPlace();
      await mkdir(place.state, { mode: 0o755 });
      await mkdir(path.join(place.folder, 'models'));
      await place.start(NOBODY);
      await place.assertUnavailable(/can't be used: it can not be opened: check that the user of the Loader may write/);
      assert.deepEqual(await place.files(), []);
      await chmod(place.state, 0o777);
      await place.comesBack();
      await place.assertWorks();
    });

    it('on a full disk makes the tasks unavailable, until there is room', { skip: ROOT_SKIP }, async () => {
      const place = await newPlace();
      await place.mountState('256k');
      const makeRoom = await place.fillState();
      await place.start();
      await place.assertUnavailable(/the disk is full/);
      assert.equal(place.loader.logLines('Tasks and schedules do not work: ').length, 1);
      await makeRoom();
      await place.comesBack();
      await place.assertWorks();
      assert.deepEqual(
        (await place.files()).filter((name) => name.includes('damaged')),
        [],
      );
    });

    it('on a disk that was full at a restart keeps what was there', { skip: ROOT_SKIP }, async () => {
      const place = await newPlace();
      await place.mountState('512k');
      await place.start();
      const task = await place.assertWorks();
      const schedule = await place.tasks.schedule(YEARLY);
      await place.loader.stop();
      const makeRoom = await place.fillState();
      await place.start();
      await place.assertUnavailable(/the disk is full/);
      await makeRoom();
      await place.comesBack();
      assert.deepEqual(await place.tasks.wholeHistory(), [task]);
      assert.deepEqual(await place.tasks.schedules(), [schedule]);
    });

    it('that another Loader has used is as that one left it, however it ended', async () => {
      const place = await newPlace();
      await place.start();
      const first = place.loader;
      const task = await place.assertWorks();
      await assert.rejects(place.start(undefined, { SHUTDOWN_TIMEOUT_MS: '1' }), /is in use by another Loader/);
      const tasksOfFirst = new TaskClient(first);
      assert.equal((await tasksOfFirst.run('evict', EVICT)).status, 'complete');
      await first.stop('SIGKILL');
      await place.start();
      const history = await place.tasks.wholeHistory();
      assert.deepEqual([history.length, history.at(-1)], [2, task]);
      await place.assertWorks();
    });

    it('that can not be used does not hold up the end of the process', async () => {
      const place = await newPlace();
      await writeFile(place.state, 'no folder');
      await place.start();
      const startedAt = performance.now();
      assert.equal(await place.loader.stop('SIGTERM'), 0);
      assert.ok(performance.now() - startedAt < 1500);
    });

    it('in a place where no folder can be made holds up nothing', async () => {
      const place = await newPlace();
      await place.start();
      await place.loader.stop();
      const env = { API_KEY, STATE_DIR: '/proc/loader/state', MODEL_CACHE_DIR: path.join(place.folder, 'models') };
      place.loader = await TestLoader.start({ env });
      await place.assertUnavailable(/can't be used/);
    });
  });

  describe('a task', { concurrency: 1, skip: S3_SKIP === false ? ROOT_SKIP : S3_SKIP }, () => {
    let device: Device;
    let mounted = '';
    const content = randomBytes(3_000_001);

    before(async () => {
      mounted = await mkdtemp(path.join(tmpdir(), 'loader-state-'));
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', mounted]);
      const env = { API_KEY, STATE_DIR: mounted, UPSTREAM_TIMEOUT_MS: '30000', STALL_TIMEOUT_MS: '30000' };
      device = await Device.start({ env });
      await device.login();
      await device.upload('model', content);
    });

    afterEach(async () => {
      device.heal();
      await rm(path.join(mounted, 'filler'), { force: true });
    });

    after(async () => {
      await device.stop();
      execFileSync('umount', ['-l', mounted]);
      await rm(mounted, { recursive: true, force: true });
    });

    async function fillDisk(): Promise<void> {
      const file = await open(path.join(mounted, 'filler'), 'w');
      try {
        for (;;) await file.appendFile(Buffer.alloc(4096));
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      } finally {
        await file.close();
      }
    }

    async function beginHeldPrefetch(): Promise<[uid: string, release: () => void]> {
      await device.clearCache();
      const gate = Promise.withResolvers<undefined>();
      device.s3Proxy.fault = () => ({ kind: 'hold', until: gate.promise });
      const uid = await device.tasks.beginPrefetch('model');
      await eventually(() => device.s3Proxy.openRequests > 0);
      return [
        uid,
        () => {
          gate.resolve(undefined);
          device.heal();
        },
      ];
    }

    /** Fills the disk, and writes until the database has no room left in its own files either. */
    async function exhaust(): Promise<void> {
      await fillDisk();
      for (let i = 0; i < 500; i++) {
        const { status } = await device.tasks.post('verify');
        if (status === 503) return;
      }
      throw new Error('the database never ran out of room');
    }

    it('completes on a full disk, where no other can begin, and its end is written when there is room', async () => {
      const [uid, release] = await beginHeldPrefetch();
      await exhaust();
      const { status, body } = await device.tasks.post('evict', EVICT);
      assert.deepEqual([status, body.code], [503, 'task_store_unavailable']);
      assert.match(String(body.detail), /the disk is full/);
      assert.equal((await device.loader.postForJson('/schedules', YEARLY)).status, 503);
      release();
      await eventually(async () => (await device.tasks.details(uid)).status === 'complete');
      const task = await device.tasks.details(uid);
      assert.equal(task.progress, 100);
      assert.equal((await device.tasks.ended(uid)).status, 'complete');
      assert.equal((await fetch(`${device.loader.url}/health`)).status, 200);
      assert.equal((await digestBody(await device.loader.load('model'))).sha256, sha256(content));
      await rm(path.join(mounted, 'filler'));
      assert.equal((await device.tasks.run('evict', EVICT)).status, 'complete');
      await device.loader.stop('SIGKILL');
      await device.startLoader();
      assert.deepEqual(await device.tasks.details(uid), task);
      assert.deepEqual(await device.tasks.list(), {});
      await device.login();
    });

    it('whose end could not be written is still that to all who ask, and interrupted after kill -9', async () => {
      const [uid, release] = await beginHeldPrefetch();
      await exhaust();
      release();
      await eventually(async () => (await device.tasks.details(uid)).status === 'complete');
      const history = await device.tasks.wholeHistory();
      assert.equal(history.find((task) => task.uid === uid)?.status, 'complete');
      assert.equal((await device.tasks.cancel(uid)).status, 'complete');
      await device.loader.stop('SIGKILL');
      await rm(path.join(mounted, 'filler'));
      await device.startLoader();
      assert.equal((await device.tasks.details(uid)).status, 'interrupted');
      await device.login();
      const [again] = Object.values(await device.tasks.list());
      assert.equal((await device.tasks.ended(again?.uid ?? '')).status, 'complete');
    });

    it('whose end could not be written is written at SIGTERM, when there is room by then', async () => {
      const [uid, release] = await beginHeldPrefetch();
      await exhaust();
      release();
      await eventually(async () => (await device.tasks.details(uid)).status === 'complete');
      const task = await device.tasks.details(uid);
      await rm(path.join(mounted, 'filler'));
      assert.equal(await device.loader.stop('SIGTERM'), 0);
      await device.startLoader();
      assert.deepEqual(await device.tasks.details(uid), task);
      await device.login();
    });

    it('ends in time, interrupted, at SIGTERM, with nothing left of it, and is begun again', async () => {
      const [uid, release] = await beginHeldPrefetch();
      const startedAt = performance.now();
      assert.equal(await device.loader.stop('SIGTERM'), 0);
      assert.ok(performance.now() - startedAt < 2000);
      release();
      assert.deepEqual(await device.unfinishedFiles(), []);
      await eventually(() => device.s3Proxy.openRequests === 0);
      await device.startLoader();
      const { status, code, result } = await device.tasks.details(uid);
      assert.deepEqual([status, code, result], ['interrupted', 'task_interrupted', null]);
      assert.equal((await device.tasks.lines(uid)).at(-1)?.text, 'The Loader stopped while the task ran.');
      const [again, ...others] = Object.values(await device.tasks.list());
      assert.deepEqual([others, again?.status], [[], 'in_progress']);
      await device.login();
      const task = await device.tasks.ended(again?.uid ?? '');
      assert.deepEqual([task.status, task.retry_of, task.attempt], ['complete', uid, 1]);
    });

    it('can not begin while the Loader stops', async () => {
      const [uid] = await beginHeldPrefetch();
      device.loader.signal('SIGTERM');
      const answers = await Promise.allSettled(Array.from({ length: 10 }, () => device.tasks.post('evict', EVICT)));
      assert.equal(await device.loader.exited(), 0);
      await device.startLoader();
      for (const answer of answers) {
        const made = answer.status === 'fulfilled' ? answer.value.body['uid'] : undefined;
        if (typeof made === 'string') assert.notEqual((await device.tasks.details(made)).status, 'in_progress');
      }
      assert.equal((await device.tasks.details(uid)).status, 'interrupted');
      await device.login();
    });
  });
});
