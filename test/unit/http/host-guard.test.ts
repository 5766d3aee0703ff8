import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { rawRequest } from '../../support/raw-request.ts';
import { makeTestApp, type TestApp } from '../../support/test-app.ts';

const ALLOWED_HOSTS = 'Loader.example.com, .fleet.example';

const PRIVATE = [
  'localhost',
  'LOCALHOST:8080',
  'localhost.',
  'loader',
  'loader:8080',
  'loader_1:8080',
  '127.0.0.1',
  '127.0.0.1:8080',
  '192.168.1.20:8080',
  '8.8.8.8',
  '[::1]',
  '[::1]:8080',
  '[FE80::1]:8080',
  'host.docker.internal:8080',
  'app.localhost',
  'jetson.local:8080',
  '',
];
const FOREIGN = [
  'evil.example',
  'EVIL.EXAMPLE:8080',
  'evil.example.',
  'localhost.evil.example',
  '127.0.0.1.evil.example',
  '127.0.0.1.evil.example:8080',
  'loader.example.com.evil.example',
  'notlocal.example',
  '[::1].evil.example',
  'localhost@evil.example',
  'localhost/evil.example',
  '[evil.example]',
  '[dead.beef]',
  '1.2.3.4.5',
  'evil.internal.example',
];

describe('without an API key', () => {
  let loader: TestApp;
  before(async () => {
    loader = await makeTestApp({ variables: { ALLOWED_HOSTS } });
    await loader.app.listen({ host: '127.0.0.1', port: 0 });
  });
  after(async () => {
    await loader.app.close();
    await loader.services.close();
    assert.deepEqual(loader.misfits, []);
  });

  for (const host of PRIVATE) {
    it(`a name that no server of the internet can have is allowed: "${host}"`, async () => {
      assert.equal((await rawRequest(loader.app, 'GET', '/status', { host })).status, 200);
    });
  }

  for (const host of FOREIGN) {
    it(`another name is refused: "${host}"`, async () => {
      const { status, body } = await rawRequest(loader.app, 'GET', '/status', { host });
      assert.deepEqual([status, body.code], [403, 'host_not_allowed']);
      assert.match(String(body.detail), /ALLOWED_HOSTS.*API_KEY/);
    });
  }

  for (const host of [
    'loader.example.com',
    'LOADER.example.com:443',
    'loader.example.com.',
    'fleet.example',
    'a.b.fleet.example',
  ]) {
    it(`a name of ALLOWED_HOSTS is allowed: ${host}`, async () => {
      assert.equal((await rawRequest(loader.app, 'GET', '/status', { host })).status, 200);
    });
  }

  it('a name beside those of ALLOWED_HOSTS is refused', async () => {
    for (const host of ['example.com', 'a.loader.example.com', 'notfleet.example']) {
      assert.equal((await rawRequest(loader.app, 'GET', '/status', { host })).status, 403, host);
    }
  });

  it('a refused request does nothing, whatever its method', async () => {
    for (const [method, path] of [
      ['POST', '/login'],
      ['POST', '/load/m'],
      ['POST', '/upload/m'],
      ['POST', '/unlock'],
      ['DELETE', '/unlock'],
      ['GET', '/unlock/events'],
    ] as const) {
      const { body } = await rawRequest(loader.app, method, path, { host: 'evil.example' });
      assert.equal(body.code, 'host_not_allowed', path);
    }
  });

  it('health checks take any name', async () => {
    assert.equal((await rawRequest(loader.app, 'GET', '/health', { host: 'loader.prod.example' })).status, 200);
  });
});

describe('with an API key', () => {
  it('every name is allowed: a foreign page does not know the key', async () => {
    const { app, services } = await makeTestApp({ apiKeys: ['the-key'] });
    await app.listen({ host: '127.0.0.1', port: 0 });
    try {
      const headers = { host: 'loader.prod.example', authorization: 'Bearer the-key' };
      assert.equal((await rawRequest(app, 'GET', '/status', headers)).status, 200);
    } finally {
      await app.close();
      await services.close();
    }
  });
});
