import assert from 'node:assert/strict';
import { chmod, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { UnlockStatus } from '../../../src/unlock/unlock-service.ts';
import { saveImages } from '../../../lab/images/image-maker.ts';
import { startDockerd, stopDockerd } from '../../../lab/services/services.ts';
import { DOCKER_SKIP } from '../../../lab/test-environment.ts';
import { testImages } from '../../support/test-images.ts';
import { UnlockDevice } from '../../support/unlock-device.ts';

const ENGINE = 'dockerd-unlock-faults';
/** A user without rights. */
const NOBODY = 65_534;

function assertFailed(status: UnlockStatus, code: string, sentence: RegExp): void {
  assert.deepEqual([status.state, status.code], ['error', code], JSON.stringify(status));
  assert.match(status.error ?? '', sentence);
}

describe('an unlock on a bad day', { skip: DOCKER_SKIP }, () => {
  let device: UnlockDevice;
  const images = testImages('day').slice(0, 3);
  const tar = saveImages(images);

  before(async () => {
    device = await UnlockDevice.start((await startDockerd(ENGINE, { isInMemory: true })).host);
  });

  beforeEach(async () => {
    await device.clear();
    await device.putArchive(tar);
  });

  after(async () => {
    await device.stop();
    await stopDockerd(ENGINE);
  });

  async function assertGoodOneFollows(): Promise<void> {
    device.engineProxy.reset();
    device.apiProxy.reset();
    const { state, error } = await device.unlock();
    assert.deepEqual([state, error], ['ready', null]);
    await device.assertLoaded(images);
    await device.assertTidy();
  }

  it('tells wrong credentials', async () => {
    assertFailed(await device.unlock('wrong-password'), 'wrong_credentials', /refused the email and password/);
    await assertGoodOneFollows();
  });

  it('tells a Resource API that is down, at the login and between login and key', async () => {
    device.apiProxy.fault = () => ({ kind: 'refuse' });
    assertFailed(await device.unlock(), 'api_unreachable', /Resource API at 127\.0\.0\.1:\d+ gave no answer/);
    device.apiProxy.fault = ({ url }) => (url.endsWith('key-fragment') ? { kind: 'refuse' } : { kind: 'pass' });
    assertFailed(await device.unlock(), 'api_unreachable', /Resource API at 127\.0\.0\.1:\d+ gave no answer/);
    device.apiProxy.fault = ({ url }) => (url.endsWith('key-fragment') ? { kind: 'never-answer' } : { kind: 'pass' });
    assertFailed(await device.unlock(), 'api_timeout', /did not answer within/);
    await assertGoodOneFollows();
  });

  it('tells a key fragment that is empty, absent or a web page', async () => {
    const answer = (status: number, body = '', headers = {}) => {
      device.apiProxy.fault = ({ url }) =>
        url.endsWith('key-fragment') ? { kind: 'answer', status, body, headers } : { kind: 'pass' };
    };
    answer(200);
    assertFailed(await device.unlock(), 'key_fragment_invalid', /empty key fragment/);
    answer(404);
    assertFailed(await device.unlock(), 'key_fragment_invalid', /no key fragment for this user/);
    answer(200, '<html>', { 'content-type': 'text/html' });
    assertFailed(await device.unlock(), 'api_invalid_response', /web page/);
    answer(403);
    assertFailed(await device.unlock(), 'token_refused', /refuses this user/);
    await assertGoodOneFollows();
  });

  it('is not held up when the answer with the key fragment gets lost once', async () => {
    let lost = 0;
    device.apiProxy.fault = ({ url }) =>
      url.endsWith('key-fragment') && lost++ === 0 ? { kind: 'refuse' } : { kind: 'pass' };
    assert.equal((await device.unlock()).state, 'ready');
    assert.equal(lost, 2);
  });

  it('tells an engine that is not there, and what is no engine', async () => {
    const socket = path.join(device.folder, 'other.sock');
    await device.restartLoader({ DOCKER_HOST: `unix://${socket}` });
    assertFailed(
      await device.unlock(),
      'engine_unreachable',
      /No Docker engine listens at .*start it, or set DOCKER_HOST/,
    );
    await writeFile(socket, 'a file');
    assertFailed(await device.unlock(), 'engine_unreachable', /ECONNREFUSED/);
    await rm(socket);
    const server = createServer((_request, response) => response.end('hello'));
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    assertFailed(await device.unlock(), 'engine_invalid_response', /is not a Docker engine: set DOCKER_HOST/);
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await device.restartLoader({ DOCKER_HOST: 'tcp://127.0.0.1:9' });
    assertFailed(await device.unlock(), 'engine_unreachable', /tcp:\/\/127\.0\.0\.1:9/);
    await device.restartLoader();
    await assertGoodOneFollows();
  });

  it('tells an engine that it may not use', async () => {
    const socket = path.join(device.folder, 'forbidden.sock');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    await chmod(socket, 0o600);
    await chmod(device.folder, 0o755);
    await device.restartLoader({ DOCKER_HOST: `unix://${socket}` }, NOBODY);
    assertFailed(await device.unlock(), 'engine_forbidden', /may not use .*add its user to the group/);
    await new Promise((resolve) => server.close(resolve));
    await device.restartLoader();
    await assertGoodOneFollows();
  });

  it('repeats a load of which the engine wants every layer', async () => {
    // The engine has the lower layers, and the first load, which leaves them out, is refused.
    const [base, api] = images;
    assert.ok(base !== undefined && api !== undefined);
    await device.docker.load(saveImages([base]));
    device.engineProxy.fault = (index) =>
      index === 0
        ? {
            kind: 'reply',
            body: '{"errorDetail":{"message":"open layer.tar: no such file"},"error":"x"}\n',
            end: 'clean',
          }
        : { kind: 'pass' };
    assert.equal((await device.unlock()).state, 'ready');
    await device.assertLoaded(images);
  });

  const REPLIES: readonly (readonly [string, string, RegExp, Parameters<typeof reply>[0]])[] = [
    [
      'garbage',
      'engine_invalid_response',
      /broke off its reply, or sent one that no/,
      { body: 'garbage\n', end: 'clean' },
    ],
    ['nothing', 'engine_invalid_response', /broke off/, { body: '', end: 'clean' }],
    [
      'an error line',
      'engine_error',
      /refused: no good/,
      { body: '{"stream":"x"}\n{"errorDetail":{"message":"no good"},"error":"no good"}\n', end: 'clean' },
    ],
    [
      'a full disk',
      'engine_disk_full',
      /disk of the Docker engine is full/,
      { body: '{"errorDetail":{"message":"write /x: no space left on device"}}\n', end: 'clean' },
    ],
    ['half a reply', 'engine_invalid_response', /broke off/, { body: '{"stream":"Loa', end: 'cut' }],
    ['half a line', 'engine_invalid_response', /broke off|none/, { body: '{"stream":"Loa', end: 'clean' }],
    [
      'success for an image that is not there',
      'engine_image_missing',
      /does not have the image/,
      { body: '{"stream":"Loaded image: x"}\n', end: 'clean' },
    ],
  ];
  function reply(fault: { body: string; end: 'clean' | 'cut' | 'never' }): void {
    device.engineProxy.fault = () => ({ kind: 'reply', ...fault });
  }
  for (const [what, code, sentence, fault] of REPLIES) {
    it(`tells an engine that replies ${what}`, async () => {
      reply(fault);
      assertFailed(await device.unlock(), code, sentence);
      assert.ok(await device.docker.ping());
      await assertGoodOneFollows();
    });
  }

  it('tells an engine that refuses before it has read', async () => {
    device.engineProxy.fault = () => ({ kind: 'early', status: 500, body: '{"message":"out of order"}' });
    assertFailed(await device.unlock(), 'engine_error', /refused: out of order/);
    await assertGoodOneFollows();
  });

  it('tells an engine that stops reading, or says no more', async () => {
    await device.restartLoader({ ENGINE_STALL_TIMEOUT_MS: '1000' });
    const never = new Promise(() => undefined);
    for (const fault of [{ kind: 'never-read' }, { kind: 'hold', afterBytes: 300_000, until: never }] as const) {
      device.engineProxy.fault = () => fault;
      assertFailed(await device.unlock(), 'engine_stalled', /took nothing for 1000 ms: it hangs.*Restart it/);
    }
    reply({ body: '{"stream":"x"}\n', end: 'never' });
    assertFailed(await device.unlock(), 'engine_stalled', /said nothing for 1000 ms.*Restart it/);
    await device.restartLoader();
    await assertGoodOneFollows();
  });

  it('tells an engine whose connection breaks, and finishes the other images', async () => {
    device.engineProxy.fault = (index) => (index === 1 ? { kind: 'cut', afterBytes: 500_000 } : { kind: 'pass' });
    assertFailed(await device.unlock(), 'engine_unreachable', /connection to the Docker engine .* failed/);
    assert.deepEqual(device.loader.openFilesUnder(device.folder), []);
    const present = (await device.docker.imageIds()).length;
    assert.ok(present > 0, 'what was under way did not come to its end');
    await assertGoodOneFollows();
  });
});

describe('an unlock into an engine of its own', { skip: DOCKER_SKIP }, () => {
  const images = testImages('own');
  const tar = saveImages(images);

  it('tells an engine that was stopped in mid-load, and succeeds when it has been started again', async () => {
    const name = 'dockerd-unlock-stopped';
    const engine = await startDockerd(name, { isInMemory: true });
    const device = await UnlockDevice.start(engine.host);
    try {
      await device.putArchive(tar);
      const never = new Promise(() => undefined);
      for (const fault of [{ kind: 'hold', afterBytes: 300_000, until: never }, { kind: 'pass' }] as const) {
        await device.docker.removeAll();
        device.engineProxy.fault = () => fault;
        await device.post();
        await device.inState('loading_images');
        process.kill((await startDockerd(name)).pid, 'SIGKILL');
        const status = await device.ended();
        assert.equal(status.state, 'error', JSON.stringify(status));
        assert.match(status.code ?? '', /^engine_(unreachable|invalid_response|stalled)$/);
        await startDockerd(name);
        device.engineProxy.reset();
        assert.equal((await device.unlock()).state, 'ready');
        await device.assertLoaded(images);
        await device.loader.stop();
        await rm(device.receiptPath);
        await device.startLoader();
      }
    } finally {
      await device.stop();
      await stopDockerd(name);
    }
  });
});
