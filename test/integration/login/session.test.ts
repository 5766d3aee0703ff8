import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Device } from '../../support/device.ts';
import { S3_SKIP } from '../../../lab/test-environment.ts';
import { digestBody, sha256 } from '../../../lab/sha256.ts';

describe('a session whose token expires', { skip: S3_SKIP }, () => {
  let device: Device;
  const content = randomBytes(50_000);
  before(async () => {
    device = await Device.start();
    await device.login();
    await device.upload('model', content);
    device.heal();
  });
  beforeEach(async () => {
    // A session makes no fresh login soon after the last one was refused.
    await device.login();
    device.heal();
  });
  afterEach(() => device.heal());
  after(() => device.stop());

  const logins = () => device.apiProxy.requests.filter((request) => request.url === '/login').length;

  it('is renewed by one login for 20 concurrent callers', async () => {
    device.origin.api.expireTokens();
    const digests = await Promise.all(
      Array.from({ length: 20 }, async () => (await digestBody(await device.loader.load('model'))).sha256),
    );
    assert.deepEqual(new Set(digests), new Set([sha256(content)]));
    assert.equal(logins(), 1);
  });

  it('is renewed within an upload', async () => {
    device.origin.api.expireTokens();
    await device.upload('other', content);
    assert.equal(logins(), 1);
    assert.equal((await digestBody(await device.loader.load('other'))).sha256, sha256(content));
  });

  it('answers 500 token_refused after one retry when the fresh token is refused too', async () => {
    device.apiProxy.fault = (request) =>
      request.url === '/login' ? { kind: 'pass' } : { kind: 'answer', status: 401 };
    const answer = await device.loader.readJson(await device.loader.load('model'));
    assert.deepEqual([answer.status, answer.body.code], [500, 'token_refused']);
    assert.equal(logins(), 1);
    assert.equal(device.apiProxy.requests.length, 3);
  });

  it('answers 500 wrong_credentials when the password was changed upstream', async () => {
    device.apiProxy.fault = (request) =>
      request.url === '/login' ? { kind: 'answer', status: 409 } : { kind: 'answer', status: 403 };
    const answer = await device.loader.readJson(await device.loader.load('model'));
    assert.deepEqual([answer.status, answer.body.code], [500, 'wrong_credentials']);
  });

  it('serves again once the fault is over', async () =>
    assert.equal((await digestBody(await device.loader.load('model'))).sha256, sha256(content)));

  it('lets a load in flight finish while another login succeeds', async () => {
    const large = randomBytes(30_000_000);
    await device.upload('large', large);
    await device.clearCache();
    const loading = await device.loader.load('large');
    await device.login();
    assert.equal((await digestBody(loading)).sha256, sha256(large));
  });
});
