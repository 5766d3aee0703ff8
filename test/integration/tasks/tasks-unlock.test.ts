import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { saveImages } from '../../../lab/images/image-maker.ts';
import { startDockerd, stopDockerd } from '../../../lab/services/services.ts';
import { DOCKER_SKIP, noteSecrets } from '../../../lab/test-environment.ts';
import { testImages } from '../../support/test-images.ts';
import { filesWith } from '../../support/files-with.ts';
import { UnlockDevice } from '../../support/unlock-device.ts';
import { eventually } from '../../../lab/waiting.ts';
import { newApiKey } from '../../support/test-loader.ts';
import type { TaskView } from '../../../lab/task-client.ts';

const ENGINE = 'dockerd-tasks';
const BUSY = { message: 'A job with the same provider is already in progress' };

describe('an unlock as a task', { skip: DOCKER_SKIP }, () => {
  let device: UnlockDevice;
  const images = testImages('tasks');
  const tar = saveImages(images);

  before(async () => {
    device = await UnlockDevice.start((await startDockerd(ENGINE, { isInMemory: true })).host, {
      API_KEY: newApiKey(),
    });
  });

  beforeEach(async () => {
    await device.clear();
    await device.loader.stop();
    await rm(device.stateFolder, { recursive: true, force: true });
    await device.startLoader();
    await device.putArchive(tar);
  });

  after(async () => {
    await device.stop();
    await stopDockerd(ENGINE);
  });

  const credentials = () => ({ email: device.email, password: device.password });

  /** Every task that there ever was: each must be an unlock of this operator, and show no password. */
  async function unlockTasks(): Promise<TaskView[]> {
    const tasks = await device.tasks.wholeHistory();
    for (const { provider, parameters } of tasks) {
      assert.deepEqual([provider, parameters], ['unlock', { email: device.email }]);
    }
    return tasks;
  }

  async function onlyTask(): Promise<TaskView> {
    const [task, ...others] = await unlockTasks();
    assert.ok(task !== undefined && others.length === 0, `there are ${others.length} more tasks, or none`);
    return task;
  }

  /** The base goes through; what stands on it waits until the answered function is called. */
  function holdEngine(): () => void {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    device.engineProxy.fault = (index) =>
      index === 0 ? { kind: 'pass' } : { kind: 'hold', afterBytes: 100_000, until: promise };
    return () => resolve(undefined);
  }

  function assertComplete(task: TaskView): void {
    const { status, progress, result, error, code, bytes_done: bytesDone, bytes_total: bytesTotal } = task;
    assert.deepEqual({ status, progress, error, code }, { status: 'complete', progress: 100, error: null, code: null });
    assert.deepEqual(result, { state: 'ready', images: images.length, bytes: bytesTotal });
    assert.ok(bytesDone > 0 && bytesDone === bytesTotal, `${bytesDone} of ${bytesTotal}`);
  }

  async function assertNothingIsLeft(): Promise<void> {
    assert.deepEqual(device.loader.openFilesUnder(device.folder), []);
    await device.assertTidy();
  }

  async function deleteUnlock(): Promise<unknown> {
    const options = { method: 'DELETE', headers: device.loader.authorization };
    return (await device.loader.readJson(await fetch(`${device.loader.url}/unlock`, options))).body;
  }

  it('is among the tasks when it was begun by POST /unlock', async () => {
    const release = holdEngine();
    assert.deepEqual((await device.post()).body, { state: 'authenticating' });
    await device.loadedAnything();
    const [listed, ...others] = Object.values(await device.tasks.list());
    assert.deepEqual([others, listed?.provider, listed?.status, listed?.result], [[], 'unlock', 'in_progress', null]);
    const task = await onlyTask();
    assert.equal(task.uid, listed?.uid);
    const { progress } = await device.status();
    assert.ok(task.bytes_done > 0 && task.bytes_done <= (progress?.bytesDone ?? 0));
    assert.equal(task.bytes_total, progress?.bytesTotal);
    release();
    const ended = await device.tasks.ended(task.uid);
    assertComplete(ended);
    assert.equal((await device.status()).state, 'ready');
    await device.assertLoaded(images);
    assert.deepEqual(await onlyTask(), ended);
  });

  it('drives the status of the unlock when it was begun by POST /', async () => {
    const uid = await device.tasks.begin('unlock', credentials());
    const order = ['authenticating', 'downloading_key', 'decrypting', 'loading_images', 'ready'];
    await device.inState(...order);
    const states = (await device.events()).map(({ state }) => state);
    assert.deepEqual([...new Set(states)], order.slice(order.indexOf(states[0] ?? '')));
    assertComplete(await device.tasks.ended(uid));
    const told = (await device.tasks.lines(uid)).map(({ text }) => text);
    assert.deepEqual(told, order);
    await device.assertLoaded(images);
    assert.equal((await onlyTask()).uid, uid);
  });

  it('tells its progress by bytes, which never goes back', async () => {
    const uid = await device.tasks.begin('unlock', credentials());
    let last = 0;
    const seen: number[] = [];
    for await (const { event, data } of device.tasks.events(uid)) {
      if (event === 'log') continue;
      const bytesDone = Number(data.bytes_done);
      assert.ok(bytesDone >= last);
      last = bytesDone;
      seen.push(bytesDone);
    }
    assert.ok(new Set(seen).size > 1, seen.join(', '));
  });

  it('is one run, one login and one task for 20 calls of both sides at once', async () => {
    const release = holdEngine();
    const calls = Array.from({ length: 20 }, (_, index) =>
      index % 2 === 0 ? device.post() : device.tasks.post('unlock', credentials()),
    );
    const answers = await Promise.all(calls);
    assert.ok(answers.every(({ status }) => status === 200));
    const ofUnlock = answers.filter((_, index) => index % 2 === 0).map(({ body }) => body);
    const ofTasks = answers.filter((_, index) => index % 2 === 1).map(({ body }) => body);
    const states = ['authenticating', 'downloading_key', 'decrypting', 'loading_images'];
    assert.ok(
      ofUnlock.every((body) => states.includes(String(body['state']))),
      JSON.stringify(ofUnlock),
    );
    const begun = ofTasks.filter((body) => body['status'] === 'in_progress');
    assert.ok(begun.length <= 1);
    assert.deepEqual(
      ofTasks.filter((body) => body['status'] === undefined).map(({ message }) => message),
      new Array(10 - begun.length).fill(BUSY.message),
    );
    const task = await onlyTask();
    if (begun.length > 0) assert.equal(begun[0]?.['uid'], task.uid);
    await device.loadedAnything();
    // Those who come later join as well.
    assert.deepEqual((await device.post()).body, { state: 'loading_images' });
    assert.deepEqual((await device.tasks.post('unlock', credentials())).body, { ...BUSY, uid: task.uid });
    release();
    assertComplete(await device.tasks.ended(task.uid));
    assert.equal((await device.status()).state, 'ready');
    assert.equal(device.apiProxy.requests.filter(({ url }) => url === '/login').length, 1);
    await onlyTask();
  });

  it('is cancelled as a whole by DELETE /tasks/{uid}, which waits for its end', async () => {
    const release = holdEngine();
    await device.post();
    await device.loadedAnything();
    const { uid } = await onlyTask();
    const { status, code } = await device.tasks.cancel(uid);
    assert.deepEqual([status, code], ['cancelled', 'task_cancelled']);
    const { state, code: unlockCode } = await device.status();
    assert.deepEqual([state, unlockCode], ['error', 'unlock_cancelled']);
    await assertNothingIsLeft();
    release();
    device.engineProxy.reset();
    assertComplete(await device.tasks.run('unlock', credentials()));
    await device.assertLoaded(images);
  });

  it('is cancelled as a whole by DELETE /unlock', async () => {
    const release = holdEngine();
    const uid = await device.tasks.begin('unlock', credentials());
    await device.loadedAnything();
    assert.deepEqual(await deleteUnlock(), { state: 'error' });
    const task = await device.tasks.ended(uid);
    assert.deepEqual(
      [task.status, task.code, task.error],
      ['cancelled', 'task_cancelled', 'The unlock was cancelled.'],
    );
    assert.equal((await device.status()).code, 'unlock_cancelled');
    await assertNothingIsLeft();
    release();
  });

  it('may be cancelled at any moment, from both sides at once', async () => {
    for (let round = 0; round < 6; round++) {
      const calls = [device.post(), device.tasks.post('unlock', credentials())];
      await Promise.race(calls);
      await new Promise((resolve) => setTimeout(resolve, round * round * 4));
      const running = Object.values(await device.tasks.list()).filter(({ status }) => status === 'in_progress');
      await Promise.all([deleteUnlock(), ...running.map(({ uid }) => device.tasks.cancel(uid))]);
      await Promise.allSettled(calls);
      await deleteUnlock();
      for (const { uid } of running) {
        const { status } = await device.tasks.details(uid);
        assert.ok(status === 'cancelled' || status === 'complete', status);
      }
      await assertNothingIsLeft();
    }
    await eventually(async () => (await device.tasks.history('?status=in_progress')).tasks.length === 0);
    assert.equal((await device.unlock()).state, 'ready');
    await device.assertLoaded(images);
  });

  it('fails with the code of the unlock', async () => {
    const wrong = `wrong-${randomBytes(8).toString('hex')}`;
    noteSecrets(wrong);
    const refused = await device.tasks.run('unlock', { email: device.email, password: wrong });
    assert.deepEqual([refused.status, refused.code, refused.result], ['failed', 'wrong_credentials', null]);
    const { code, error } = await device.status();
    assert.deepEqual([code, error], [refused.code, refused.error]);
    assert.equal((await device.tasks.lines(refused.uid)).at(-1)?.level, 'error');

    await device.post(wrong);
    await eventually(async () => (await unlockTasks()).length === 2);
    const [second] = await unlockTasks();
    assert.equal((await device.tasks.ended(second?.uid ?? '')).code, 'wrong_credentials');

    await device.putArchive(tar, randomBytes(64));
    const wrongKey = await device.tasks.run('unlock', credentials());
    assert.deepEqual([wrongKey.status, wrongKey.code], ['failed', 'archive_key_wrong']);
  });

  it('fails at once where there is no archive; POST /unlock is refused and makes no task', async () => {
    await rm(device.archivePath);
    const { status, code, error } = await device.tasks.run('unlock', credentials());
    assert.deepEqual([status, code], ['failed', 'archive_not_found']);
    assert.match(error ?? '', /^Encrypted archive not found: there is no \/.*images\.enc\. Put the archive there/);
    assert.equal((await device.status()).state, 'idle');
    assert.equal((await device.post()).status, 404);
    await onlyTask();
  });

  it('is complete at once when everything is unlocked already', async () => {
    await device.unlock();
    device.apiProxy.requests.length = 0;
    const task = await device.tasks.run('unlock', credentials());
    assert.deepEqual([task.status, task.progress], ['complete', 100]);
    assert.equal((task.result as { state: string }).state, 'ready');
    // POST /unlock has nothing to do either: no task.
    assert.deepEqual((await device.post()).body, { state: 'ready' });
    assert.equal((await unlockTasks()).length, 2);

    await device.restartLoader();
    const again = await device.tasks.run('unlock', credentials());
    assert.equal(again.status, 'complete');
    assert.deepEqual([device.apiProxy.requests.length, device.engineProxy.loads.length > 0], [0, true]);
  });

  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    it(`is interrupted by ${signal}, and does not begin again by itself`, async () => {
      const release = holdEngine();
      await device.post();
      await device.loadedAnything();
      const { uid } = await onlyTask();
      const watching = Array.fromAsync(device.tasks.events(uid)).catch(() => undefined);
      await device.loader.stop(signal);
      await watching;
      release();
      device.engineProxy.reset();
      await device.startLoader();
      const task = await onlyTask();
      assert.deepEqual([task.uid, task.status, task.code, task.result], [uid, 'interrupted', 'task_interrupted', null]);
      assert.deepEqual(await device.tasks.list(), {});
      assert.equal((await device.status()).state, 'idle');
      assertComplete(await device.tasks.run('unlock', credentials()));
      await device.loader.stop('SIGTERM');
      await device.startLoader();
      assert.equal((await unlockTasks()).length, 2);
    });
  }

  it('keeps the password to itself: in no answer, log or file', async () => {
    const release = holdEngine();
    const uid = await device.tasks.begin('unlock', credentials());
    await device.loadedAnything();
    const shown = JSON.stringify([
      await device.tasks.list(),
      await device.tasks.details(uid),
      await device.tasks.history(),
      await device.tasks.lines(uid),
    ]);
    assert.ok(!shown.includes(device.password) && shown.includes(device.email));
    const filesHoldNone = async () => {
      assert.notDeepEqual(await filesWith(device.email, device.stateFolder), [], 'the tasks are elsewhere');
      assert.deepEqual(await filesWith(device.password, device.stateFolder), []);
    };
    await filesHoldNone();
    release();
    await device.tasks.ended(uid);
    await filesHoldNone();
    await device.loader.stop('SIGKILL');
    await filesHoldNone();
    assert.ok(!device.loader.log().includes(device.password));
    await device.startLoader();
  });

  it('works, without being a task, where the database of the tasks can not be used', async () => {
    await device.loader.stop();
    const file = path.join(device.folder, 'no-folder');
    await writeFile(file, 'a file');
    await device.startLoader({ STATE_DIR: file });
    assert.equal((await device.tasks.post('unlock', credentials())).status, 503);
    assert.equal((await device.unlock()).state, 'ready');
    await device.assertLoaded(images);
    assert.equal((await device.loader.get('/tasks')).body.code, 'task_store_unavailable');
    await device.restartLoader();
  });
});
