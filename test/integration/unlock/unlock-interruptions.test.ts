import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { saveImages } from '../../../lab/images/image-maker.ts';
import { SERVICES_FOLDER, startDockerd, stopDockerd } from '../../../lab/services/services.ts';
import { DOCKER_SKIP } from '../../../lab/test-environment.ts';
import { testImages } from '../../support/test-images.ts';
import { UnlockDevice } from '../../support/unlock-device.ts';

const run = promisify(execFile);
const ENGINE = 'dockerd-interruptions';
/** A campaign of its own, `npm run test:kills`, takes more moments than every run of the tests needs. */
const KILLS = Number(process.env['LOADER_TEST_KILLS'] ?? 4);

describe('an unlock that is interrupted', { skip: DOCKER_SKIP }, () => {
  let device: UnlockDevice;
  const images = testImages('interrupted', 3);
  const tar = saveImages(images);

  before(async () => {
    device = await UnlockDevice.start((await startDockerd(ENGINE, { isInMemory: true })).host, {
      SHUTDOWN_TIMEOUT_MS: '5000',
    });
    await device.putArchive(tar);
  });

  after(async () => {
    await device.stop();
    await stopDockerd(ENGINE);
  });

  it(`is ready, with every image identical, after kill -9 at each of ${KILLS} moments of a run`, async (test) => {
    await device.clear();
    const startedAt = performance.now();
    assert.equal((await device.unlock()).state, 'ready');
    const wholeMs = performance.now() - startedAt;
    let killedInMidRun = 0;
    for (let moment = 0; moment < KILLS; moment++) {
      await device.clear();
      await device.loader.stop('SIGKILL');
      await device.startLoader();
      await device.post();
      await sleep((wholeMs * (moment + 0.5)) / KILLS);
      const { state } = await device.status();
      await device.loader.stop('SIGKILL');
      if (state !== 'ready') killedInMidRun++;
      await device.startLoader();
      const status = await device.unlock();
      assert.deepEqual([status.state, status.error], ['ready', null], `killed at moment ${moment}, ${state}`);
      await device.assertLoaded(images);
      await device.assertTidy();
    }
    test.diagnostic(`${killedInMidRun} of ${KILLS} kills fell into the run`);
    assert.ok(killedInMidRun > 0, 'no kill fell into the run');
  });

  it('exits in time at SIGTERM, and is finished by the next start', async () => {
    await device.clear();
    await device.restartLoader();
    const never = new Promise(() => undefined);
    device.engineProxy.fault = (index) =>
      index === 0 ? { kind: 'pass' } : { kind: 'hold', afterBytes: 200_000, until: never };
    await device.post();
    await device.loadedAnything();
    const events = device.events();
    await sleep(50);
    const startedAt = performance.now();
    assert.equal(await device.loader.stop('SIGTERM'), 0);
    assert.ok(performance.now() - startedAt < 3000);
    // Whoever watched was told how it ended.
    const last = (await events).at(-1);
    assert.deepEqual([last?.state, last?.code], ['error', 'unlock_cancelled']);
    await device.assertTidy();
    device.engineProxy.reset();
    await device.startLoader();
    assert.equal((await device.unlock()).state, 'ready');
    await device.assertLoaded(images);
  });

  it('breaks off even a load that was sent whole when the time to stop is over', async () => {
    await device.clear();
    await device.restartLoader({ SHUTDOWN_TIMEOUT_MS: '500', ENGINE_STALL_TIMEOUT_MS: '60000' });
    device.engineProxy.fault = () => ({ kind: 'reply', body: '{"stream":"x"}\n', end: 'never' });
    await device.post();
    await device.engineProxy.replying();
    // A request that does not end has no more time either.
    const slow = connect(device.loader.port, '127.0.0.1').on('error', () => undefined);
    slow.write('POST /unlock HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{');
    await sleep(50);
    assert.equal(await device.loader.stop('SIGTERM'), 0, 'it had to be forced');
    slow.destroy();
    device.engineProxy.reset();
    await device.startLoader();
    assert.equal((await device.unlock()).state, 'ready');
  });
});

describe('an unlock into an engine whose disk is full', { skip: DOCKER_SKIP }, () => {
  const name = 'dockerd-full-disk';
  const dataRoot = path.join(SERVICES_FOLDER, 'full-disk');
  const images = testImages('full', 4);
  let device: UnlockDevice;

  before(async () => {
    await mkdir(dataRoot, { recursive: true });
    // The images take 28 MB once they are loaded, and each is staged before.
    await run('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', dataRoot]);
    const env = { ENGINE_STALL_TIMEOUT_MS: '3000' }; // Such an engine may hang.
    device = await UnlockDevice.start((await startDockerd(name, { dataRoot })).host, env);
    await device.putArchive(saveImages(images));
  });

  after(async () => {
    await device.stop();
    await stopDockerd(name);
    await run('umount', [dataRoot]);
    await rm(dataRoot, { recursive: true, force: true });
  });

  it('says so, and succeeds when there is room', async () => {
    const { state, code, error } = await device.unlock();
    assert.deepEqual([state, code], ['error', 'engine_disk_full'], String(error));
    assert.match(error ?? '', /disk of the Docker engine is full: make room/);
    assert.ok(await device.docker.ping());
    await run('mount', ['-o', 'remount,size=200m', dataRoot]);
    assert.equal((await device.unlock()).state, 'ready');
    await device.assertLoaded(images);
  });
});
