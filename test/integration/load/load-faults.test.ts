import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Device, STALL_TIMEOUT_MS } from '../../support/device.ts';
import type { Fault, SeenRequest } from '../../../lab/faults/fault-proxy.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';
import { eventually } from '../../../lab/waiting.ts';
import { TestLoader } from '../../support/test-loader.ts';

/** Three ranges and a bit. */
const content = randomBytes(26_000_000);
const digest = sha256(content);
const PASS: Fault = { kind: 'pass' };

const isSuffix = (request: SeenRequest) => request.headers.range === 'bytes=-32';
const isRange = (request: SeenRequest, first: number) => request.headers.range?.startsWith(`bytes=${first}-`) === true;
const SECOND_RANGE = 8 * 1024 * 1024;

describe('a cold load', { skip: S3_SKIP }, () => {
  let device: Device;
  before(async () => {
    device = await Device.start();
    await device.login();
    await device.upload('model', content);
  });
  beforeEach(async () => {
    await device.clearCache();
    device.heal();
  });
  afterEach(async () => {
    device.heal();
    // Whatever went wrong, nothing is left behind (settled waits for it), and the next load is whole.
    await device.clearCache();
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
  });
  after(() => device.stop());

  async function expectFailure(code: string, name = 'model'): Promise<void> {
    const answer = await device.loader.readJson(await device.loader.load(name));
    assert.deepEqual([answer.status, answer.body.code], [500, code]);
    assert.equal(typeof answer.body.detail, 'string');
  }

  /** The load fails, or breaks off when its first bytes are gone already. */
  async function expectFailedOrBroken(code: string): Promise<void> {
    const logged = device.loader.log().length;
    const response = await device.loader.load('model');
    if (response.status === 500) assert.equal(((await response.json()) as { code: string }).code, code);
    else await assert.rejects(digestBody(response));
    await eventually(() => device.loader.log().slice(logged).includes(`"${code}"`));
  }

  it('goes whole to a client that closes its sending half, and so does a warm one', async () => {
    const body = JSON.stringify({ filename: 'model', folder: 'models' });
    const head = `POST /load/x HTTP/1.1\r\nHost: loader\r\nContent-Type: application/json\r\nContent-Length: ${body.length}`;
    for (let load = 0; load < 2; load++) {
      const socket = connect(device.loader.port, '127.0.0.1');
      socket.end(`${head}\r\n\r\n${body}`);
      const received = Buffer.concat((await socket.toArray()) as Buffer[]);
      assert.equal(sha256(received.subarray(received.indexOf('\r\n\r\n') + 4)), digest);
    }
  });

  it('answers resource_not_in_api when the API lacks the small part', () =>
    expectFailure('resource_not_in_api', 'none'));

  it('answers resource_not_in_cdn when the CDN lacks the big part', async () => {
    await device.origin.api.store('models', 'only-small.small', randomBytes(3072));
    await expectFailure('resource_not_in_cdn', 'only-small');
  });

  it('answers upload_unfinished when the small part is not that of the object', async () => {
    await device.origin.api.store('models', 'model.small', randomBytes(3072));
    await expectFailure('upload_unfinished');
    await device.upload('model', content);
  });

  it('answers cdn_signature_refused when a secret of cdn.yaml is wrong', async () => {
    await device.origin.publishCdnConfig({ ...device.goodCdnConfig, downloader_access_secret: 'wrong-secret' });
    await device.login();
    await expectFailure('cdn_signature_refused');
    await device.origin.publishCdnConfig(device.goodCdnConfig);
    await device.login();
  });

  it('answers cdn_invalid_response when the CDN answers 200 to a range request', async () => {
    device.s3Proxy.fault = (request) =>
      isSuffix(request) ? { kind: 'rewrite', status: 200, headers: { 'content-range': undefined } } : PASS;
    await expectFailure('cdn_invalid_response');
  });

  it('breaks off when a later range is answered with 200', async () => {
    device.s3Proxy.fault = (request) => (isRange(request, SECOND_RANGE) ? { kind: 'rewrite', status: 200 } : PASS);
    await expectFailedOrBroken('cdn_invalid_response');
  });

  it('answers cdn_invalid_response to a wrong Content-Range of the end', async () => {
    device.s3Proxy.fault = (request) =>
      isSuffix(request) ? { kind: 'rewrite', headers: { 'content-range': 'bytes 0-31/25996960' } } : PASS;
    await expectFailure('cdn_invalid_response');
  });

  it('answers cdn_invalid_response to a wrong Content-Range of the first range', async () => {
    device.s3Proxy.fault = (request) =>
      isRange(request, 0) ? { kind: 'rewrite', headers: { 'content-range': 'bytes 16-8388623/25996960' } } : PASS;
    await expectFailure('cdn_invalid_response');
  });

  it('breaks off when the object changes under it', async () => {
    device.s3Proxy.fault = (request) =>
      isRange(request, SECOND_RANGE)
        ? { kind: 'rewrite', headers: { 'x-amz-meta-small-sha256': 'ab'.repeat(32) } }
        : PASS;
    await expectFailedOrBroken('cdn_object_changed');
  });

  it('is whole where a proxy makes ETags weak, or each edge of the CDN has its own', async () => {
    for (const etag of ['W/"weak"', undefined]) {
      let edge = 0;
      device.s3Proxy.fault = () => ({ kind: 'rewrite', headers: { etag: etag ?? `"edge ${edge++}"` } });
      assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
      await device.clearCache();
    }
  });

  it('breaks off when the CDN refuses If-Match', async () => {
    device.s3Proxy.fault = (request) =>
      isRange(request, SECOND_RANGE) ? { kind: 'answer', status: 412, body: '<Error/>' } : PASS;
    await expectFailedOrBroken('cdn_object_changed');
  });

  it('sends If-Match with every range', async () => {
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
    const ranges = device.s3Proxy.requests.filter((request) => /^bytes=\d/.test(request.headers.range ?? ''));
    assert.equal(ranges.length, 4);
    assert.ok(ranges.every((request) => request.headers['if-match'] !== undefined));
  });

  it('waits out a 503', async () => {
    let refused = 0;
    device.s3Proxy.fault = () =>
      refused++ < 2 ? { kind: 'answer', status: 503, body: '<Error><Code>SlowDown</Code></Error>' } : PASS;
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
    assert.ok(refused > 2);
  });

  it('resumes at the byte where a body broke off', async () => {
    let cuts = 0;
    device.s3Proxy.fault = (request) =>
      isRange(request, SECOND_RANGE) && cuts++ === 0 ? { kind: 'cut', afterBytes: 1_000_000 } : PASS;
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
    const resumed = device.s3Proxy.requests.find((request) => /^bytes=9\d{6}-/.test(request.headers.range ?? ''));
    assert.ok(resumed, 'no range went on in the middle of the second one');
  });

  it('resumes where a body went silent', async () => {
    let silences = 0;
    device.s3Proxy.fault = (request) =>
      isRange(request, SECOND_RANGE) && silences++ === 0 ? { kind: 'silence', afterBytes: 1_000_000 } : PASS;
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
    assert.equal(silences, 1);
    const resumed = device.s3Proxy.requests.find((request) => /^bytes=9\d{6}-/.test(request.headers.range ?? ''));
    assert.ok(resumed, 'no range went on in the middle of the second one');
  });

  it('answers cdn_unreachable when a body breaks each time', async () => {
    device.s3Proxy.fault = (request) =>
      (request.headers.range ?? '').startsWith('bytes=-') ? PASS : { kind: 'cut', afterBytes: 0 };
    await expectFailure('cdn_unreachable');
  });

  it('answers cdn_timeout when the CDN goes silent within the end', async () => {
    device.s3Proxy.fault = (request) => (isSuffix(request) ? { kind: 'silence', afterBytes: 10 } : PASS);
    await expectFailure('cdn_timeout');
  });

  it('answers cdn_timeout in bounded time when every body goes silent', async () => {
    device.s3Proxy.fault = (request) => (isSuffix(request) ? PASS : { kind: 'silence', afterBytes: 0 });
    const startedAt = performance.now();
    await expectFailure('cdn_timeout');
    const tookMs = performance.now() - startedAt;
    assert.ok(tookMs > STALL_TIMEOUT_MS && tookMs < STALL_TIMEOUT_MS + 4_000, `it took ${tookMs} ms`);
  });

  it('answers cdn_timeout when the CDN goes silent within an error', async () => {
    device.s3Proxy.fault = () => ({
      kind: 'answer',
      status: 503,
      headers: { 'content-length': '300' },
      body: '<Error>',
    });
    await expectFailure('cdn_timeout');
  });

  it('answers cdn_unreachable when the CDN is down', async () => {
    device.s3Proxy.fault = () => ({ kind: 'refuse' });
    await expectFailure('cdn_unreachable');
  });

  it('answers cdn_timeout when the CDN never answers', async () => {
    device.s3Proxy.fault = () => ({ kind: 'never-answer' });
    await expectFailure('cdn_timeout');
  });

  it('answers what the API does wrong with its code', async () => {
    device.apiProxy.fault = () => ({ kind: 'answer', status: 500 });
    await expectFailure('api_error');
    device.apiProxy.fault = () => ({ kind: 'never-answer' });
    await expectFailure('api_timeout');
    device.apiProxy.fault = () => ({ kind: 'refuse' });
    await expectFailure('api_unreachable');
    device.apiProxy.fault = () => ({
      kind: 'answer',
      status: 200,
      headers: { 'content-type': 'text/html' },
      body: '<p>',
    });
    await expectFailure('api_invalid_response');
    device.apiProxy.fault = () => ({ kind: 'answer', status: 200, body: 'x'.repeat(33) });
    await expectFailure('envelope_invalid');
    device.apiProxy.fault = () => ({ kind: 'answer', status: 200, body: 'x'.repeat(5_000_000) });
    await expectFailure('api_invalid_response');
  });
});

describe('concurrent loads', { skip: S3_SKIP }, () => {
  let device: Device;
  before(async () => {
    // On a busy machine, a range may stand still for longer than the other tests allow, and is asked for again.
    device = await Device.start({ env: { STALL_TIMEOUT_MS: '10000' } });
    await device.login();
    await device.upload('model', content);
  });
  afterEach(() => device.heal());
  after(() => device.stop());

  it('share one transfer from the CDN, and a late one reads what is there already', async () => {
    await device.clearCache();
    device.heal();
    // The last range waits, so that the late one comes in the middle.
    device.s3Proxy.fault = (request) => (isRange(request, 3 * SECOND_RANGE) ? { kind: 'delay', ms: 400 } : PASS);
    const early = Array.from({ length: 8 }, async () => digestBody(await device.loader.load('model')));
    await eventually(() => device.s3Proxy.requests.some((request) => isRange(request, 3 * SECOND_RANGE)));
    const late = digestBody(await device.loader.load('model'));
    for (const body of await Promise.all([...early, late])) assert.equal(body.sha256, digest);
    const ranges = device.s3Proxy.requests.filter((request) => /^bytes=\d/.test(request.headers.range ?? ''));
    assert.equal(ranges.length, 4, 'each range is fetched once');
  });

  it('do not suffer when one of the callers leaves', async () => {
    await device.clearCache();
    device.heal();
    device.s3Proxy.fault = (request) => (isRange(request, 3 * SECOND_RANGE) ? { kind: 'delay', ms: 300 } : PASS);
    const leaving = await device.loader.load('model');
    const staying = digestBody(await device.loader.load('model'));
    await leaving.body?.cancel();
    assert.equal((await staying).sha256, digest);
    const ranges = device.s3Proxy.requests.filter((request) => /^bytes=\d/.test(request.headers.range ?? ''));
    assert.equal(ranges.length, 4, 'they shared one transfer');
  });

  it('take the new version when the resource was uploaded again by another device', async () => {
    const other = await Device.start();
    try {
      // Another Loader on the same upstream: only its cache is its own.
      const newer = randomBytes(26_000_000);
      assert.equal((await digestBody(await device.loader.load('model'))).sha256, digest);
      const second = await TestLoader.start({
        env: { RESOURCE_API_URL: device.origin.api.url, MODEL_CACHE_DIR: path.join(other.folder, 'cache') },
      });
      await second.login(device.email, device.password);
      assert.equal((await second.upload('model', newer)).status, 200);
      await second.stop();
      assert.equal((await digestBody(await device.loader.load('model'))).sha256, sha256(newer));
      assert.equal((await digestBody(await device.loader.load('model'))).sha256, sha256(newer));
    } finally {
      await other.stop();
    }
  });
});
