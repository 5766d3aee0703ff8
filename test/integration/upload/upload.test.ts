import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { after, afterEach, before, describe, it } from 'node:test';
import { Device } from '../../support/device.ts';
import type { Fault, SeenRequest } from '../../../lab/faults/fault-proxy.ts';
import { BOUNDARY, FORM_END, formHead, partHead, RawConnection } from '../../../lab/faults/raw-http.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';

/** Three parts and a bit. */
const older = randomBytes(26_000_000);
const newer = randomBytes(26_500_000);
const PASS: Fault = { kind: 'pass' };

const isPart = (request: SeenRequest, number: number) =>
  request.method === 'PUT' && request.url.includes(`partNumber=${number}&`);
const isComplete = (request: SeenRequest) => request.method === 'POST' && request.url.includes('uploadId=');
const isPut = (request: SeenRequest) => request.url === '/resources/models';

describe('POST /upload', { skip: S3_SKIP }, () => {
  let device: Device;
  before(async () => {
    device = await Device.start();
    await device.login();
    await device.upload('model', older);
    device.heal();
  });
  afterEach(async () => {
    device.heal();
    await device.settled();
    await eventually(async () => (await device.pendingUploads()).length === 0);
  });
  after(() => device.stop());

  async function expectLoads(digest: string, name = 'model', folder = 'models'): Promise<void> {
    assert.equal((await digestBody(await device.loader.load(name, folder))).sha256, digest);
    await device.clearCache();
    assert.equal((await digestBody(await device.loader.load(name, folder))).sha256, digest);
  }

  /** The upload fails with `code`, and the resource that stood before still loads, from both places. */
  async function expectFailure(code: string): Promise<void> {
    const answer = await device.loader.upload('model', newer);
    assert.deepEqual([answer.status, answer.body.code], [500, code]);
    await device.settled();
    await eventually(async () => (await device.pendingUploads()).length === 0);
    device.heal();
    await expectLoads(sha256(older));
  }

  it('stores under the folder that came before the file', async () => {
    const content = randomBytes(100_000);
    const body = Buffer.concat([
      Buffer.from(`${partHead('folder')}first/second\r\n${partHead('data', 'm')}`),
      content,
      Buffer.from(FORM_END),
    ]);
    const response = await fetch(`${device.loader.url}/upload/before`, {
      method: 'POST',
      headers: { 'content-type': `multipart/form-data; boundary=${BOUNDARY}` },
      body,
    });
    assert.equal(response.status, 200);
    await expectLoads(sha256(content), 'before', 'first/second');
    assert.ok((await device.objects()).includes('first/second/before.big'));
  });

  it('stores under the folder that came after the file, and nothing under the default one', async () => {
    const answer = await device.loader.upload('after', newer, 'elsewhere');
    assert.equal(answer.status, 200);
    await expectLoads(sha256(newer), 'after', 'elsewhere');
    const objects = await device.objects();
    assert.ok(objects.includes('elsewhere/after.big'));
    assert.ok(!objects.includes('models/after.big'));
    const response = await device.loader.load('after', 'models');
    assert.equal((await device.loader.readJson(response)).body.code, 'resource_not_in_api');
  });

  it('stores under models where no folder is given', async () => {
    const content = randomBytes(1000);
    await device.upload('plain', content);
    await expectLoads(sha256(content), 'plain');
  });

  it('passes over other fields', async () => {
    const form = new FormData();
    form.append('comment', 'a newer one');
    form.append('data', new Blob([randomBytes(10)]), 'x');
    const response = await fetch(`${device.loader.url}/upload/fields`, { method: 'POST', body: form });
    assert.equal(response.status, 200);
  });

  it('completes the object only after the small part is with the API', async () => {
    const order: string[] = [];
    device.apiProxy.fault = (request) => {
      if (isPut(request)) order.push('small part');
      return PASS;
    };
    device.s3Proxy.fault = (request) => {
      if (isComplete(request)) order.push('complete');
      return PASS;
    };
    await device.upload('order', newer);
    assert.deepEqual(order, ['small part', 'complete']);
  });

  it('survives a part that fails once', async () => {
    let failures = 0;
    device.s3Proxy.fault = (request) =>
      isPart(request, 2) && failures++ === 0 ? { kind: 'answer', status: 503, body: '<Error/>' } : PASS;
    await device.upload('retried', newer);
    assert.ok(failures > 1);
    await expectLoads(sha256(newer), 'retried');
  });

  it('survives a lost answer to Complete', async () => {
    let losses = 0;
    device.s3Proxy.fault = (request) => (isComplete(request) && losses++ < 3 ? { kind: 'lose-answer' } : PASS);
    await device.upload('lost', newer);
    assert.ok(losses > 0, 'no answer was lost');
    await expectLoads(sha256(newer), 'lost');
  });

  it('leaves the old resource whole when a part is refused each time', async () => {
    device.s3Proxy.fault = (request) => (isPart(request, 3) ? { kind: 'answer', status: 500, body: '<Error/>' } : PASS);
    await expectFailure('cdn_error');
  });

  it('leaves the old resource whole when the CDN stops answering to parts', async () => {
    device.s3Proxy.fault = (request) => (isPart(request, 2) ? { kind: 'never-answer' } : PASS);
    await expectFailure('cdn_timeout');
  });

  it('leaves the old resource whole when the CDN refuses the upload', async () => {
    device.s3Proxy.fault = (request) =>
      request.method === 'POST' ? { kind: 'answer', status: 403, body: '<Error/>' } : PASS;
    await expectFailure('cdn_access_denied');
  });

  it('leaves the old resource whole when the API does not take the small part', async () => {
    device.apiProxy.fault = (request) => (isPut(request) ? { kind: 'answer', status: 500 } : PASS);
    await expectFailure('api_error');
  });

  it('leaves the old resource whole when the API is gone', async () => {
    device.apiProxy.fault = () => ({ kind: 'refuse' });
    await expectFailure('api_unreachable');
  });

  it('puts the old small part back when Complete fails', async () => {
    device.s3Proxy.fault = (request) =>
      isComplete(request) ? { kind: 'answer', status: 500, body: '<Error/>' } : PASS;
    await expectFailure('cdn_error');
  });

  it('lets one whole result win when two upload one name at once', async () => {
    const [first, second] = await Promise.all([
      device.loader.upload('contested', older),
      device.loader.upload('contested', newer),
    ]);
    assert.deepEqual([first.status, second.status], [200, 200]);
    const { sha256: warm } = await digestBody(await device.loader.load('contested'));
    assert.ok([sha256(older), sha256(newer)].includes(warm));
    await device.clearCache();
    assert.equal((await digestBody(await device.loader.load('contested'))).sha256, warm);
  });

  it('gives loads during an upload either the old or the new resource, whole', async () => {
    await device.upload('busy', older);
    const upload = device.loader.upload('busy', newer);
    const digests = new Set<string>();
    for (let count = 0; count < 12; count++) digests.add((await digestBody(await device.loader.load('busy'))).sha256);
    assert.equal((await upload).status, 200);
    for (const digest of digests) assert.ok([sha256(older), sha256(newer)].includes(digest));
    await expectLoads(sha256(newer), 'busy');
  });
});

describe('a client that leaves', { skip: S3_SKIP }, () => {
  let device: Device;
  before(async () => {
    device = await Device.start({ env: { CLIENT_STALL_TIMEOUT_MS: '800' } });
    await device.login();
    await device.upload('model', older);
  });
  afterEach(async () => {
    device.heal();
    await device.settled();
    await eventually(async () => (await device.pendingUploads()).length === 0);
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, sha256(older));
  });
  after(() => device.stop());

  /** An upload of which part of the file has arrived. */
  async function halfUpload(): Promise<RawConnection> {
    const connection = await RawConnection.open(device.loader.port);
    await connection.send(formHead('/upload/model', 30_000_000) + partHead('data', 'm'));
    for (let sent = 0; sent < 20_000_000; sent += 1_000_000) await connection.send(randomBytes(1_000_000));
    await eventually(async () => (await device.pendingUploads()).length === 1);
    return connection;
  }

  it('in the middle of an upload leaves no upload in the bucket and no half file in the cache', async () => {
    const connection = await halfUpload();
    connection.close();
    await eventually(async () => (await device.pendingUploads()).length === 0);
    await device.settled();
    assert.ok(!(await device.objects()).includes('models/half.big'));
  });

  it('silent in the middle of an upload is cut off by the watchdog, and leaves nothing either', async () => {
    const connection = await halfUpload();
    const answer = await connection.answer(4000);
    assert.deepEqual([answer.status, answer.body.code], [500, 'client_stalled']);
    await eventually(async () => (await device.pendingUploads()).length === 0);
    connection.close();
  });

  it('in the middle of a cold load stops the transfer and leaves no file', async () => {
    await device.clearCache();
    device.s3Proxy.fault = (request) =>
      request.headers.range?.startsWith('bytes=16777216') === true ? { kind: 'delay', ms: 600 } : PASS;
    const response = await device.loader.load('model');
    await response.body?.cancel();
    await device.settled();
    await eventually(() => device.loader.openSockets() < 12);
    assert.ok(!existsSync(device.bigPath('model')), 'the transfer went on and was published');
  });

  it('in the middle of a warm load leaves no file open', async () => {
    const response = await device.loader.load('model');
    await response.body?.cancel();
    await device.settled();
  });

  it('before the first byte, while the API is slow, is noticed when the load sends its first bytes', async () => {
    await device.clearCache();
    device.heal();
    device.apiProxy.fault = () => ({ kind: 'delay', ms: 400 });
    const abort = new AbortController();
    const loading = fetch(`${device.loader.url}/load/model`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ filename: 'model', folder: 'models' }),
      signal: abort.signal,
    });
    await eventually(() => device.apiProxy.requests.length === 1);
    abort.abort();
    await assert.rejects(loading);
    // Until then, it looks like a client that has closed its sending half and waits.
    await eventually(() => device.loader.logLines('The client closed the connection').length > 0);
    await device.settled();
    assert.ok(!existsSync(device.bigPath('model')), 'the transfer went on and was published');
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, sha256(older));
  });

  it('and does not read its load is cut off by the watchdog', async () => {
    const connection = await RawConnection.open(device.loader.port);
    connection.socket.pause();
    const body = JSON.stringify({ filename: 'model', folder: 'models' });
    await connection.send(
      `POST /load/model HTTP/1.1\r\nHost: loader\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await eventually(() => device.loader.openFilesUnder(device.folder).length > 0);
    await eventually(() => device.loader.openFilesUnder(device.folder).length === 0, { timeoutMs: 4000 });
    await eventually(() => device.loader.log().includes('client_stalled'));
    connection.close();
  });

  it('silent within a JSON body is cut off', async () => {
    const connection = await RawConnection.open(device.loader.port);
    await connection.send(
      'POST /login HTTP/1.1\r\nHost: loader\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"email"',
    );
    await eventually(() => connection.isClosed, { timeoutMs: 4000 });
  });
});

describe('a client that is faster than the CDN', { skip: S3_SKIP }, () => {
  it('is left waiting for longer than it may be silent itself, and its upload succeeds', async () => {
    const device = await Device.start({ env: { CLIENT_STALL_TIMEOUT_MS: '1000', STALL_TIMEOUT_MS: '10000' } });
    try {
      await device.login();
      device.s3Proxy.fault = (request) => (request.method === 'PUT' ? { kind: 'delay', ms: 2500 } : PASS);
      const content = randomBytes(60_000_000);
      await device.upload('slow', content);
      assert.equal((await digestBody(await device.loader.load('slow'))).sha256, sha256(content));
    } finally {
      await device.stop();
    }
  });
});

describe('an upload interrupted by kill -9', { skip: S3_SKIP }, () => {
  it('leaves the old resource whole, and its half file is removed at the next start', async () => {
    const device = await Device.start();
    try {
      await device.login();
      await device.upload('model', older);
      for (const sent of [1, 9, 17, 25]) {
        const connection = await RawConnection.open(device.loader.port);
        await connection.send(formHead('/upload/model', 30_000_000) + partHead('data', 'm'));
        for (let index = 0; index < sent; index++) await connection.send(randomBytes(1_000_000));
        await device.restartLoader('SIGKILL');
        connection.close();
        await device.login();
        assert.deepEqual(await device.unfinishedFiles(), []);
        assert.equal((await digestBody(await device.loader.load('model'))).sha256, sha256(older));
      }
    } finally {
      await device.stop();
    }
  });
});
