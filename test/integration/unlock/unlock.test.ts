import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { makeImage, saveImages } from '../../../lab/images/image-maker.ts';
import { startDockerd, stopDockerd } from '../../../lab/services/services.ts';
import { DOCKER_SKIP } from '../../../lab/test-environment.ts';
import { testImages, testLayer } from '../../support/test-images.ts';
import { eventually } from '../../../lab/waiting.ts';
import { UnlockDevice } from '../../support/unlock-device.ts';

const ENGINE = 'dockerd-unlock';

describe('an unlock', { skip: DOCKER_SKIP }, () => {
  let device: UnlockDevice;
  const images = testImages();

  before(async () => {
    device = await UnlockDevice.start((await startDockerd(ENGINE, { isInMemory: true })).host);
  });

  beforeEach(async () => {
    await device.clear();
    await device.putArchive(saveImages(images));
  });

  after(async () => {
    await device.stop();
    await stopDockerd(ENGINE);
  });

  it('answers in the words of the original, from idle to ready', async () => {
    await device.restartLoader();
    assert.deepEqual(await device.status(), { state: 'idle', error: null, code: null, progress: null });
    const answer = await device.post();
    assert.deepEqual([answer.status, answer.body], [200, { state: 'authenticating' }]);
    const states = (await device.events()).map(({ state }) => state);
    const order = ['authenticating', 'downloading_key', 'decrypting', 'loading_images', 'ready'];
    assert.deepEqual([...new Set(states)], order.slice(order.indexOf(states[0] ?? '')));
    const { progress, ...rest } = await device.status();
    assert.deepEqual(rest, { state: 'ready', error: null, code: null });
    assert.deepEqual([progress?.percent, progress?.imagesDone, progress?.imagesTotal], [100, 5, 5]);
    assert.deepEqual((await device.post()).body, { state: 'ready' });
  });

  it('shows progress that never goes back', async () => {
    const loads: Promise<unknown>[] = [];
    device.engineProxy.fault = () => {
      // A little at a time, so that there is something to see.
      const until = new Promise((resolve) => setTimeout(resolve, 300));
      loads.push(until);
      return { kind: 'hold', afterBytes: 400_000, until };
    };
    await device.post();
    const seen = (await device.events()).map(({ progress }) => progress).filter((progress) => progress !== null);
    assert.ok(seen.length >= 3, `only ${seen.length} events`);
    for (const [index, progress] of seen.entries()) {
      const earlier = seen[index - 1];
      assert.ok(progress.percent >= (earlier?.percent ?? 0) && progress.percent <= 100);
      assert.ok(progress.bytesDone >= (earlier?.bytesDone ?? 0) && progress.bytesDone <= progress.bytesTotal);
      assert.ok(progress.imagesDone >= (earlier?.imagesDone ?? 0) && progress.imagesDone <= 5);
      assert.equal(progress.imagesTotal, 5);
    }
    assert.ok(seen.some(({ currentImages }) => currentImages.includes('azaion-test/base:1')));
    assert.ok(seen.some(({ percent }) => percent > 0 && percent < 100));
    assert.ok(seen.some(({ bytesPerSecond, secondsLeft }) => bytesPerSecond > 0 && secondsLeft !== null));
    assert.equal(seen.at(-1)?.percent, 100);
  });

  it('is started once by 20 calls at the same time', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => device.post()));
    for (const { status } of answers) assert.equal(status, 200);
    assert.equal((await device.ended()).state, 'ready');
    for (const asked of ['/login', '/binary-split/key-fragment']) {
      assert.equal(device.apiProxy.requests.filter(({ url }) => url === asked).length, 1, asked);
    }
  });

  it('sends every layer once, and the shared ones before those that stand on them', async () => {
    await device.unlock();
    const sent = device.engineProxy.loads.reduce((sum, bytes) => sum + bytes, 0);
    const once = new Map(
      images.flatMap(({ layers, diffIds }) => layers.map((layer, at) => [diffIds[at], layer.length])),
    );
    const layerBytes = [...once.values()].reduce((sum, bytes) => sum + bytes, 0);
    assert.ok(sent >= layerBytes && sent < layerBytes + 100_000, `${sent} bytes were sent of ${layerBytes}`);
  });

  it('sends whole images to an engine that wants every layer', async () => {
    device.engineProxy.info = { DriverStatus: [['driver-type', 'io.containerd.snapshotter.v1']] };
    assert.equal((await device.unlock()).state, 'ready');
    await device.assertLoaded(images);
    assert.equal(device.engineProxy.loads.length, images.length);
    const sent = device.engineProxy.loads.reduce((sum, bytes) => sum + bytes, 0);
    const layerBytes = images.flatMap(({ layers }) => layers).reduce((sum, layer) => sum + layer.length, 0);
    assert.ok(sent >= layerBytes, `${sent} bytes were sent of ${layerBytes}`);
  });

  it('sends only the image that is missing', async () => {
    await device.unlock();
    await device.docker.remove('azaion-test/worker:1');
    device.engineProxy.reset();
    await device.restartLoader();
    assert.equal((await device.unlock()).state, 'ready');
    assert.equal(device.engineProxy.loads.length, 1);
    assert.ok((device.engineProxy.loads[0] ?? 0) < 1_100_000);
    await device.assertLoaded(images);
  });

  it('puts a tag back that was moved to another image', async () => {
    await device.unlock();
    const [other] = testImages('two');
    assert.ok(other !== undefined);
    await device.docker.load(saveImages([other]));
    await device.restartLoader();
    assert.equal((await device.unlock()).state, 'ready');
    for (const { id, tags } of images) {
      for (const tag of tags) assert.equal((await device.docker.inspect(tag))?.Id, id);
    }
    assert.ok((device.engineProxy.loads.at(-1) ?? 0) < 10_000, 'no layer had to be sent');
  });

  it('knows from its receipt that all is there, without the API, and logs in beside when that answers', async () => {
    await device.unlock();
    await device.restartLoader();
    device.engineProxy.reset();
    device.apiProxy.fault = () => ({ kind: 'refuse' });
    assert.equal((await device.unlock()).state, 'ready');
    assert.equal(device.engineProxy.loads.length, 0);
    device.apiProxy.reset();
    assert.deepEqual((await device.post()).body, { state: 'ready' });
    await eventually(async () => (await device.loader.get('/status')).body['authenticated'] === true);
  });

  it('is ready without an archive when its images are there, and 404 when they are not', async () => {
    await device.unlock();
    await device.restartLoader();
    await rm(device.archivePath);
    assert.deepEqual((await device.post()).body, { state: 'ready' });

    await device.docker.remove('azaion-test/worker:1');
    await device.restartLoader();
    const { status, body } = await device.post();
    const detail = `Encrypted archive not found: there is no ${device.archivePath}. Put the archive there, or set IMAGES_PATH.`;
    assert.deepEqual([status, body], [404, { detail, code: 'archive_not_found' }]);
    assert.equal((await device.status()).state, 'idle');
  });

  it('unlocks the archive that appears after it was ready without one', async () => {
    await device.unlock();
    await device.restartLoader();
    await rm(device.archivePath);
    assert.deepEqual((await device.post()).body, { state: 'ready' });
    const next = testImages('two');
    await device.putArchive(saveImages(next));
    assert.deepEqual((await device.post()).body, { state: 'authenticating' });
    assert.equal((await device.ended()).state, 'ready');
    for (const { id } of next) assert.equal((await device.docker.inspect(id))?.Id, id);
  });

  it('loads a new release whose images have the tags of SERVICE_IMAGES too', async () => {
    await device.unlock();
    const next = testImages('two');
    await device.putArchive(saveImages(next));
    await device.restartLoader({ SERVICE_IMAGES: 'azaion-test/api', API_VERSION: '1' });
    assert.equal((await device.unlock()).state, 'ready');
    for (const { id } of next) assert.equal((await device.docker.inspect(id))?.Id, id);
  });

  it('removes no image of others, whatever label they have', async () => {
    const other = makeImage({
      tags: ['azaion-test/other:1'],
      layers: [testLayer('other')],
      config: { Labels: { 'com.azaion.loader.shared-layers': 'true' } },
    });
    await device.docker.load(saveImages([other]));
    assert.equal((await device.unlock()).state, 'ready');
    await device.assertLoaded([...images, other]);
  });

  it('says that the engine can not be asked where there is no archive', async () => {
    await device.unlock();
    await device.loader.stop();
    await rm(device.archivePath);
    await device.startLoader({ DOCKER_HOST: 'unix:///nowhere.sock' });
    const { status, body } = await device.post();
    assert.deepEqual([status, body.code], [500, 'engine_unreachable']);
  });

  it('is stopped by DELETE even while it asks the engine whether all is there', async () => {
    await device.unlock();
    await device.loader.stop();
    await rm(device.archivePath);
    const silent = path.join(device.folder, 'silent.sock');
    const server = createServer(() => undefined);
    await new Promise<void>((resolve) => server.listen(silent, resolve));
    await device.startLoader({ DOCKER_HOST: `unix://${silent}`, ENGINE_TIMEOUT_MS: '30000' });
    const asked = device.post();
    await once(server, 'connection');
    const startedAt = performance.now();
    const answer = await device.loader.fetch('/unlock', { method: 'DELETE' });
    assert.deepEqual(await answer.json(), { state: 'idle' });
    assert.equal((await asked).body.code, 'unlock_cancelled');
    assert.ok(performance.now() - startedAt < 5000);
    server.close();
  });

  it('is not held up by a pipe where the receipt is, nor taken in by a folder where the archive is', async () => {
    await device.restartLoader();
    await mkdir(path.dirname(device.receiptPath), { recursive: true });
    await promisify(execFile)('mkfifo', [device.receiptPath]);
    assert.equal((await device.unlock()).state, 'ready');
    await device.restartLoader();
    await rm(device.archivePath);
    await mkdir(device.archivePath);
    const { status, body } = await device.post();
    assert.deepEqual([status, body.code], [500, 'archive_unreadable']);
    await rm(device.archivePath, { recursive: true });
  });

  it('is not ready because of SERVICE_IMAGES alone: the images may be of another release', async () => {
    const earlier = testImages('earlier');
    await device.docker.load(saveImages(earlier));
    await device.restartLoader({ SERVICE_IMAGES: 'azaion-test/api, azaion-test/worker', API_VERSION: '1' });
    assert.equal((await device.unlock()).state, 'ready');
    for (const { id, tags } of images) {
      for (const tag of tags)
        assert.equal((await device.docker.inspect(tag))?.Id, id, `${tag} is of the earlier release`);
    }
  });

  it('sends nothing when another program has loaded the release', async () => {
    await device.docker.load(saveImages(images));
    await device.restartLoader({ SERVICE_IMAGES: 'azaion-test/api, azaion-test/worker', API_VERSION: '1' });
    assert.equal((await device.unlock()).state, 'ready');
    assert.equal(device.engineProxy.loads.length, 0);
  });

  it('goes by SERVICE_IMAGES and API_VERSION where there is no archive', async () => {
    await device.docker.load(saveImages(images));
    await rm(device.archivePath);
    await device.restartLoader({ SERVICE_IMAGES: 'azaion-test/api, azaion-test/worker', API_VERSION: '1' });
    device.apiProxy.fault = () => ({ kind: 'refuse' });
    assert.equal((await device.unlock()).state, 'ready');
    assert.equal(device.engineProxy.loads.length, 0);
    device.apiProxy.reset();

    await device.docker.remove('azaion-test/worker:1');
    await device.inState('idle');
    assert.equal((await device.post()).status, 404);
  });

  it('may be cancelled when there is nothing to cancel', async () => {
    await device.restartLoader();
    for (const state of ['idle', 'ready']) {
      const answer = await device.loader.fetch('/unlock', { method: 'DELETE' });
      assert.deepEqual([answer.status, await answer.json()], [200, { state }]);
      await device.unlock();
    }
  });

  it('goes on when the client that started it has left', async () => {
    await device.restartLoader();
    const abort = new AbortController();
    const events = await fetch(`${device.loader.url}/unlock/events`, { signal: abort.signal });
    await device.post();
    abort.abort();
    await events.body?.cancel().catch(() => undefined);
    assert.equal((await device.ended()).state, 'ready');
  });

  it('wants email and password', async () => {
    await device.restartLoader();
    const { status, body } = await device.loader.postForJson('/unlock', { email: device.email });
    assert.equal(status, 422);
    assert.deepEqual(body.detail, [{ type: 'missing', loc: ['body', 'password'], msg: 'Field required' }]);
    assert.equal((await device.status()).state, 'idle');
  });
});
