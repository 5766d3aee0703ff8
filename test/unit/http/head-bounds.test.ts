import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { rawRequest } from '../../support/raw-request.ts';
import { makeTestApp, type TestApp } from '../../support/test-app.ts';

const HOST = 'loader';

describe('the head of a request', () => {
  let loader: TestApp;
  before(async () => {
    // With a key: what is refused here is refused before the key is looked at.
    loader = await makeTestApp({ apiKeys: ['the-key'] });
    await loader.app.listen({ host: '127.0.0.1', port: 0 });
  });
  after(async () => {
    await loader.app.close();
    await loader.services.close();
  });

  for (const [what, path] of [
    ['a query', `/status?${'q'.repeat(8192)}`],
    ['a path that there is not', `/${'p'.repeat(8192)}`],
    ['a file name', `/load/${'n'.repeat(8193)}`],
    ['a uid', `/tasks/${'u'.repeat(9000)}`],
  ] as const) {
    it(`with ${what} of more than 8,192 characters is refused with 414`, async () => {
      const method = what === 'a file name' ? 'POST' : 'GET';
      const { status, body } = await rawRequest(loader.app, method, path, { host: HOST });
      assert.deepEqual([status, body.code], [414, 'url_too_long']);
      assert.ok(String(body.detail).length < 100);
    });
  }

  it('with a name of up to 8,192 characters gets the answer of its route', async () => {
    const path = `/load/${'n'.repeat(8192 - '/load/'.length)}`;
    assert.equal((await rawRequest(loader.app, 'POST', path, { host: HOST })).status, 401);
  });

  it('with more than 100 headers is refused with 431, and none is left out before', async () => {
    const some = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`x-${i}`, 'v']));
    const last = { authorization: 'Bearer the-key' };
    const good = await rawRequest(loader.app, 'GET', '/status', { host: HOST, ...some(97), ...last });
    assert.equal(good.status, 200);
    for (const count of [100, 2_000]) {
      const bad = await rawRequest(loader.app, 'GET', '/status', { host: HOST, ...some(count), ...last });
      assert.deepEqual([bad.status, bad.body.code], [431, 'headers_too_large']);
    }
  });

  it('with two Host headers is refused with 400', async () => {
    const { status, body } = await rawRequest(loader.app, 'GET', '/health', { host: [HOST, 'evil.example'] });
    assert.deepEqual([status, body.code], [400, 'malformed_request']);
  });
});
